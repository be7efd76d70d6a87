// SPDX-License-Identifier: Apache-2.0
// Sliding sync by the classes that matrix-js-sdk has for it, with its Rust crypto: a list, an invite, live events, a
// subscription, typing, receipts, account data, unread counts, an encrypted room, a message to a device.
// node sliding.mjs BASE_URL ALICE PASSWORD BASE_URL BOB PASSWORD; prints one line per step, ends at the first failure.
// Alice slides, Bob syncs as ever.
import { logIn, step, until } from "./story.mjs";
const { SlidingSync, SlidingSyncEvent } = await import("matrix-js-sdk/lib/sliding-sync.js");

const [alicesUrl, alice, alicesPassword, bobsUrl, bob, bobsPassword] = process.argv.slice(2);

const anna = await logIn(alicesUrl, alice, alicesPassword);
const berta = await logIn(bobsUrl, bob, bobsPassword);
step("the server says that it has it",
  await anna.doesServerSupportUnstableFeature("org.matrix.simplified_msc3575"));
const texts = (room) => (anna.getRoom(room)?.getLiveTimeline().getEvents() ?? [])
  .map((event) => event.getContent().body).filter(Boolean);

const { room_id: old } = await anna.createRoom({ name: "Old" });
for (const text of ["one", "two", "three"]) await anna.sendTextMessage(old, text);
const { room_id: den } = await anna.createRoom({ name: "Den", preset: "public_chat" });
await berta.startClient();
await berta.joinRoom(den);

const state = [
  ["m.room.create", ""], ["m.room.name", ""], ["m.room.encryption", ""], ["m.room.join_rules", ""],
  ["m.room.member", "$ME"], ["m.room.member", "$LAZY"],
];
const list = { ranges: [[0, 0]], sort: ["by_recency"], timeline_limit: 1, required_state: state, filters: {} };
const sliding = new SlidingSync(alicesUrl, new Map([["all", list]]), { timeline_limit: 3, required_state: state },
  anna, 20_000);
const told = [];
sliding.on(SlidingSyncEvent.RoomData, (room, data) => told.push([room, data]));
await anna.startClient({ slidingSync: sliding });

await until("the first window has the newest room", () => anna.getRoom(den)?.name === "Den");
step("and no other", !anna.getRoom(old) && sliding.getListData("all").joinedCount === 2);
sliding.setListRanges("all", [[0, 19]]);
await until("a larger window has the rest", () => anna.getRoom(old)?.name === "Old");
step("with one event each", texts(old).join() === "three");
sliding.modifyRoomSubscriptions(new Set([old]));
await until("a subscription brings what was there before", () => texts(old).join() === "one,two,three");
step("the members are counted", anna.getRoom(den).getJoinedMemberCount() === 2);

const { event_id: hello } = await berta.sendTextMessage(den, "hello anna");
await until("what is said comes at once", () => texts(den).includes("hello anna"));
const [, live] = told.findLast(([room]) => room === den);
step("and is marked as live", live.num_live === 1 && !live.initial);
step("its sender is known", anna.getRoom(den).getMember(berta.getUserId())?.membership === "join");
await berta.sendTyping(den, true, 20_000);
await until("typing is seen", () => anna.getRoom(den).getMember(berta.getUserId())?.typing);
await berta.sendTyping(den, false, 0);
await until("so is its end", () => !anna.getRoom(den).getMember(berta.getUserId())?.typing);

const { event_id: own } = await anna.sendTextMessage(den, "hello berta");
await until("one's own message comes back", () => texts(den).includes("hello berta"));
await until("the other user has it", () => berta.getRoom(den)?.findEventById(own));
await berta.sendReadReceipt(berta.getRoom(den).findEventById(own));
await until("receipts are seen", () =>
  anna.getRoom(den).getUsersReadUpTo(anna.getRoom(den).findEventById(own)).includes(berta.getUserId()));

await anna.setAccountData("org.example.test", { n: 1 });
await until("account data comes", () => anna.getAccountData("org.example.test")?.getContent().n === 1);
await anna.setRoomTag(den, "m.favourite", { order: 0.5 });
await until("that of rooms too", () => anna.getRoom(den).tags["m.favourite"]?.order === 0.5);
await anna.setRoomName(den, "Lair");
await until("a new name is seen", () => anna.getRoom(den).name === "Lair");

const { room_id: secret } = await berta.createRoom({
  name: "Secret", preset: "private_chat", invite: [anna.getUserId()],
  initial_state: [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }],
});
await until("an invite comes", () => anna.getRoom(secret)?.getMyMembership() === "invite");
step("with the room's name", anna.getRoom(secret).name === "Secret");
await anna.joinRoom(secret);
await until("the room comes when it is accepted", () => anna.getRoom(secret)?.getMyMembership() === "join");
await until("its encryption is known", () => anna.getRoom(secret).hasEncryptionStateEvent());
await until("the other user sees the join", () => berta.getRoom(secret)?.getJoinedMemberCount() === 2);
await berta.sendTextMessage(secret, "between us");
await until("the key comes as a message to the device, and the text is read", () =>
  texts(secret).includes("between us"));
await anna.sendTextMessage(secret, "an answer");
await until("the devices of the other user are known", () => berta.getRoom(secret).getLiveTimeline().getEvents()
  .some((event) => event.getContent().body === "an answer"));

await anna.leave(den);
await until("one is told of one's own leave", () => told.some(([room, data]) => room === den
  && data.timeline.some((event) => event.state_key === anna.getUserId() && event.content.membership === "leave")));
step("nothing went wrong meanwhile", hello && anna.getSyncState() === "SYNCING");
process.exit(0);
