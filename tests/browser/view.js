// SPDX-License-Identifier: Apache-2.0
// What is seen of a room: its members, and a line for each message with all that belongs to it.
import { download } from "./attachments.js";

const element = (id) => document.getElementById(id);
const pictures = new Map();

export function status(text) {
  element("status").textContent = text;
}

export function show(client, roomId) {
  const room = client && roomId && client.getRoom(roomId);
  if (!room) return;
  element("room").textContent = `${room.name} ${roomId}`;
  element("members").replaceChildren(...room.getJoinedMembers().map((member) => line(member.userId)));
  const messages = room.getLiveTimeline().getEvents().filter((event) => event.getType() === "m.room.message"
    || event.getType() === "m.room.encrypted" || event.isRedacted() && event.getWireType() !== "m.reaction");
  element("messages").replaceChildren(...messages.filter((event) => !event.isRelation("m.replace"))
    .map((event) => message(client, room, event)));
}

function message(client, room, event) {
  const lock = event.isEncrypted() ? "🔒 " : "";
  const content = event.getContent();
  const repliedTo = event.replyEventId && room.findEventById(event.replyEventId);
  const reply = repliedTo ? `↳ ${repliedTo.getContent().body}: ` : "";
  const body = event.isRedacted() ? "removed" : content.body;
  const edited = event.replacingEvent() ? " (edited)" : "";
  const reactions = (room.relations.getChildEventsForEvent(event.getId(), "m.annotation", "m.reaction")
    ?.getSortedAnnotationsByKey() ?? []).map(([key, of]) => ` ${key}${of.size}`).join("");
  const readers = room.getReceiptsForEvent(event).map(({ userId }) => userId).filter((user) => user !== client.getUserId());
  const read = readers.length ? ` read by ${readers.join(", ")}` : "";
  const sent = event.status === null ? "" : ` (${event.status})`;
  const item = line(`${lock}${event.getSender()}: ${reply}${body}${edited}${sent}${reactions}${read}`);
  item.dataset.id = event.getId();
  if (content.msgtype === "m.image") item.append(picture(client, event));
  return item;
}

function picture(client, event) {
  if (!pictures.has(event.getId())) {
    const image = document.createElement("img");
    pictures.set(event.getId(), image);
    download(client, event.getContent()).then((url) => { image.src = url; }, (error) => status(`picture: ${error}`));
  }
  return pictures.get(event.getId());
}

function line(text) {
  return Object.assign(document.createElement("li"), { textContent: text });
}
