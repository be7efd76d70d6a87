// SPDX-License-Identifier: Apache-2.0
// A small client on matrix-js-sdk. The test uses the forms of page.html, and `window.app` for what a real client has
// menus for. With `?encrypted` it has keys.
import * as sdk from "matrix-js-sdk";
import { CryptoEvent, decodeRecoveryKey } from "matrix-js-sdk/lib/crypto-api";
import { upload } from "./attachments.js";
import * as view from "./view.js";

const element = (id) => document.getElementById(id);
const hasKeys = new URLSearchParams(location.search).has("encrypted");
const secretKeys = {};
let client;
let roomId = localStorage.getItem("room");
let password = "";

const show = () => view.show(client, roomId);

async function start(session) {
  const cryptoCallbacks = {
    getSecretStorageKey: async ({ keys }) => {
      const id = Object.keys(keys).find((each) => secretKeys[each] ?? secretKeys[""]);
      return id ? [id, secretKeys[id] ?? secretKeys[""]] : null;
    },
    cacheSecretStorageKey: (id, _info, key) => { secretKeys[id] = key; },
  };
  client = sdk.createClient({ ...session, cryptoCallbacks, timelineSupport: true });
  client.on(sdk.ClientEvent.Sync, (state) => { view.status(state === "PREPARED" || state === "SYNCING" ? "signed in" : state); show(); });
  for (const event of [sdk.RoomEvent.Timeline, sdk.RoomEvent.LocalEchoUpdated, sdk.RoomEvent.Redaction, sdk.RoomEvent.Receipt,
    sdk.RoomStateEvent.Members, sdk.MatrixEventEvent.Decrypted, sdk.MatrixEventEvent.Replaced]) client.on(event, () => setTimeout(show));
  client.on(sdk.RoomMemberEvent.Membership, async (event, member) => {
    if (member.userId === client.getUserId() && member.membership === "invite") {
      await client.joinRoom(member.roomId);
      remember(member.roomId);
    }
    show();
  });
  if (hasKeys) {
    await client.initRustCrypto();
    client.on(CryptoEvent.KeysChanged, show);
  }
  // What is not sent yet is not shown: what the test clicks on has its id.
  await client.startClient({ initialSyncLimit: 50, pendingEventOrdering: sdk.PendingEventOrdering.Detached });
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
      view.status(`${id} failed: ${error}`);
      console.error(error);
    }
  });
}

onSubmit("login", async () => {
  const baseUrl = element("homeserver").value;
  password = element("password").value;
  const answer = await sdk.createClient({ baseUrl }).loginRequest({
    type: "m.login.password",
    identifier: { type: "m.id.user", user: element("user").value },
    password,
  });
  const session = { baseUrl, userId: answer.user_id, accessToken: answer.access_token, deviceId: answer.device_id };
  localStorage.setItem("session", JSON.stringify(session));
  await start(session);
});

onSubmit("create", async () => {
  const encryption = { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };
  const encrypted = element("encrypt").checked;
  const room = await client.createRoom({
    preset: "private_chat",
    name: encrypted ? "Secret room" : "Browser room",
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

async function confirm(request) {
  try {
    return await request(null);
  } catch (error) {
    if (!error.data?.flows) throw error;
    const identifier = { type: "m.id.user", user: client.getUserId() };
    return request({ type: "m.login.password", identifier, password, session: error.data.session });
  }
}

const text = (body) => ({ msgtype: "m.text", body });

window.app = {
  /** Cross-signing, secret storage and key backup; the recovery key. */
  async setUp() {
    const api = client.getCrypto();
    await api.bootstrapCrossSigning({ authUploadDeviceSigningKeys: confirm });
    const recovery = await api.createRecoveryKeyFromPassphrase();
    await api.bootstrapSecretStorage({
      createSecretStorageKey: async () => recovery, setupNewSecretStorage: true, setupNewKeyBackup: true,
    });
    await api.checkKeyBackupAndEnable();
    if (!await api.isCrossSigningReady() || !await api.isSecretStorageReady()) throw new Error("not set up");
    return recovery.encodedPrivateKey;
  },
  /** On a new device: trust it, and fetch the keys of old messages. */
  async recover(recoveryKey) {
    secretKeys[""] = decodeRecoveryKey(recoveryKey);
    const api = client.getCrypto();
    await api.userHasCrossSigningKeys(client.getUserId(), true);
    await api.bootstrapCrossSigning({});
    await api.loadSessionBackupPrivateKeyFromSecretStorage();
    const { imported } = await api.restoreKeyBackup({});
    for (const room of client.getRooms()) room.getLiveTimeline().getEvents().forEach((event) => client.decryptEventIfNeeded(event));
    return imported;
  },
  /** How many keys the server has; the library would say what it remembers. */
  backedUp: async () => {
    const headers = { Authorization: `Bearer ${client.getAccessToken()}` };
    return (await (await fetch(`${client.getHomeserverUrl()}/_matrix/client/v3/room_keys/version`, { headers })).json()).count;
  },
  open: (id) => remember(id),
  room: () => roomId,
  image: async (bytes) => {
    const blob = new Blob([new Uint8Array(bytes)], { type: "image/png" });
    const isEncrypted = client.getRoom(roomId).hasEncryptionStateEvent();
    await client.sendEvent(roomId, "m.room.message", await upload(client, blob, isEncrypted));
  },
  reply: (id, body) => client.sendEvent(roomId, "m.room.message",
    { ...text(body), "m.relates_to": { "m.in_reply_to": { event_id: id } } }),
  react: (id, key) => client.sendEvent(roomId, "m.reaction",
    { "m.relates_to": { rel_type: "m.annotation", event_id: id, key } }),
  edit: (id, body) => client.sendEvent(roomId, "m.room.message",
    { ...text(`* ${body}`), "m.new_content": text(body), "m.relates_to": { rel_type: "m.replace", event_id: id } }),
  redact: (id) => client.redactEvent(roomId, id),
  read: () => client.sendReadReceipt(client.getRoom(roomId).getLiveTimeline().getEvents().at(-1)),
};

const kept = localStorage.getItem("session");
if (kept) await start(JSON.parse(kept));
