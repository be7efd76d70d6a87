// SPDX-License-Identifier: Apache-2.0
// A client of one room on matrix-js-sdk. What the test may ask of it is in page.html; `?encrypted` makes rooms encrypted.
import * as sdk from "matrix-js-sdk";
import { CryptoEvent } from "matrix-js-sdk/lib/crypto-api";

const element = (id) => document.getElementById(id);
const encrypted = new URLSearchParams(location.search).has("encrypted");
let client;
let roomId = localStorage.getItem("room");

function status(text) {
  element("status").textContent = text;
}

function show() {
  const room = client && roomId && client.getRoom(roomId);
  if (!room) return;
  element("room").textContent = roomId;
  fill("members", room.getJoinedMembers().map((member) => member.userId));
  const messages = room.getLiveTimeline().getEvents().filter((event) => event.getType() === "m.room.message");
  fill("messages", messages.map((event) => {
    const lock = event.isEncrypted() ? "🔒 " : "";
    const sent = event.status === null ? "" : ` (${event.status})`;
    return `${lock}${event.getSender()}: ${event.getContent().body}${sent}`;
  }));
}

function fill(id, texts) {
  element(id).replaceChildren(...texts.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
}

async function start(session) {
  client = sdk.createClient(session);
  client.on(sdk.ClientEvent.Sync, (state) => { status(state === "PREPARED" || state === "SYNCING" ? "signed in" : state); show(); });
  client.on(sdk.RoomEvent.Timeline, show);
  client.on(sdk.RoomEvent.LocalEchoUpdated, show);
  client.on(sdk.RoomStateEvent.Members, show);
  client.on(sdk.MatrixEventEvent.Decrypted, show);
  client.on(sdk.RoomMemberEvent.Membership, async (event, member) => {
    if (member.userId === client.getUserId() && member.membership === "invite") {
      await client.joinRoom(member.roomId);
      remember(member.roomId);
    }
    show();
  });
  if (encrypted) {
    await client.initRustCrypto();
    client.on(CryptoEvent.KeysChanged, show);
  }
  await client.startClient({ initialSyncLimit: 20 });
}

function remember(id) {
  roomId = id;
  localStorage.setItem("room", id);
  show();
}

function onSubmit(id, act) {
  element(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await act();
    } catch (error) {
      status(`${id} failed: ${error}`);
      console.error(error);
    }
  });
}

onSubmit("login", async () => {
  const baseUrl = element("homeserver").value;
  const answer = await sdk.createClient({ baseUrl }).loginRequest({
    type: "m.login.password",
    identifier: { type: "m.id.user", user: element("user").value },
    password: element("password").value,
  });
  const session = { baseUrl, userId: answer.user_id, accessToken: answer.access_token, deviceId: answer.device_id };
  localStorage.setItem("session", JSON.stringify(session));
  await start(session);
});

onSubmit("create", async () => {
  const encryption = { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };
  const room = await client.createRoom({
    preset: "private_chat",
    name: "Browser room",
    invite: [element("invite").value].filter(Boolean),
    initial_state: encrypted ? [encryption] : [],
  });
  remember(room.room_id);
});

onSubmit("say", async () => {
  const body = element("text").value;
  element("text").value = "";
  await client.sendEvent(roomId, "m.room.message", { msgtype: "m.text", body });
});

const kept = localStorage.getItem("session");
if (kept) await start(JSON.parse(kept));
