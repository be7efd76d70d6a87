// SPDX-License-Identifier: Apache-2.0
// End-to-end encryption with the crypto of matrix-js-sdk (which is that of the Rust SDK), without a browser:
// cross-signing, secret storage, key backup, a dehydrated device, two people who compare emoji, a second device that
// restores everything, a reset of the keys.
// node crypto.mjs BASE_URL ALICE PASSWORD BASE_URL BOB PASSWORD, whose servers may be two; prints one line per step,
// ends at the first failure.
import { logIn, step, until } from "./story.mjs";
const { CryptoEvent, VerificationPhase, VerificationRequestEvent, VerifierEvent } =
  await import("matrix-js-sdk/lib/crypto-api/index.js");

const [alicesUrl, alice, alicesPassword, bobsUrl, bob, bobsPassword] = process.argv.slice(2);
const passwords = { [alice]: alicesPassword, [bob]: bobsPassword };
const urls = { [alice]: alicesUrl, [bob]: bobsUrl };
const secretKeys = {};

async function signIn(user) {
  const client = await logIn(urls[user], user, passwords[user], {
    cryptoCallbacks: {
      getSecretStorageKey: async ({ keys }) => {
        const id = Object.keys(keys).find((each) => secretKeys[each]);
        return id ? [id, secretKeys[id]] : null;
      },
      cacheSecretStorageKey: (id, _info, key) => { secretKeys[id] = key; },
    },
  });
  await client.startClient({ initialSyncLimit: 20 });
  await until(`${user} syncs`, () => client.isInitialSyncComplete());
  return client;
}

let confirmations = 0;
const confirmBy = (client) => async (request) => {
  try {
    return await request(null);
  } catch (error) {
    if (!error.data?.flows) throw error;
    confirmations += 1;
    const identifier = { type: "m.id.user", user: client.getUserIdLocalpart() };
    const password = passwords[client.getUserIdLocalpart()];
    return request({ type: "m.login.password", identifier, password, session: error.data.session });
  }
};

const anna = await signIn(alice);
const berta = await signIn(bob);
for (const client of [anna, berta]) {
  await client.getCrypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: confirmBy(client) });
}
step("cross-signing is set up without a password", (await anna.getCrypto().isCrossSigningReady()) && confirmations === 0);

const recovery = await anna.getCrypto().createRecoveryKeyFromPassphrase("a passphrase");
await anna.getCrypto().bootstrapSecretStorage({
  createSecretStorageKey: async () => recovery, setupNewSecretStorage: true, setupNewKeyBackup: true,
});
step("secret storage is set up", await anna.getCrypto().isSecretStorageReady());
await anna.getCrypto().checkKeyBackupAndEnable();
step("the key backup is in use", await anna.getCrypto().getActiveSessionBackupVersion());

// Not every server has dehydrated devices. Where there is one, it is sent the keys like any other.
const dehydrates = await anna.getCrypto().isDehydrationSupported();
if (dehydrates) {
  await anna.getCrypto().startDehydration({ createNewKey: true });
  const devices = async () => (await anna.getCrypto().getUserDeviceInfo([anna.getUserId()])).get(anna.getUserId());
  await until("a dehydrated device is there", async () => [...(await devices()).values()].some(({ dehydrated }) => dehydrated));
}

const { room_id: room } = await anna.createRoom({
  preset: "private_chat", invite: [berta.getUserId()],
  initial_state: [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }],
});
await until("the invite comes", () => berta.getRoom(room)?.getMyMembership() === "invite");
await berta.joinRoom(room);
await until("the join is seen", () => anna.getRoom(room)?.getJoinedMemberCount() === 2);
await anna.sendTextMessage(room, "a secret");
const read = (client, text = "a secret") => client.getRoom(room)?.getLiveTimeline().getEvents()
  .some((event) => event.isEncrypted() && event.getContent().body === text);
await until("the message is read", () => read(berta));
await berta.sendTextMessage(room, "an answer");
await until("so is the answer", () => read(anna, "an answer"));
// Two people compare emoji, and trust each other from then on: messages in the room, and a signature uploaded by each.
berta.once(CryptoEvent.VerificationRequestReceived, async (request) => {
  await request.accept();
  request.on(VerificationRequestEvent.Change, () => follow(request));
  follow(request);
});
const followed = new Set();
function follow(request) {
  const { verifier } = request;
  if (!verifier || followed.has(verifier)) return;
  followed.add(verifier);
  verifier.on(VerifierEvent.ShowSas, (sas) => sas.confirm());
  verifier.verify().catch((error) => console.log("FAIL verification", error));
}
const asked = await anna.getCrypto().requestVerificationDM(berta.getUserId(), room);
await until("the other user is ready to compare", () => asked.phase === VerificationPhase.Ready);
await asked.startVerification("m.sas.v1");
follow(asked);
await until("both have compared", () => asked.phase === VerificationPhase.Done);
const trusts = async (one, other) => (await one.getCrypto().getUserVerificationStatus(other.getUserId())).isCrossSigningVerified();
await until("each trusts the other", async () => (await trusts(anna, berta)) && (await trusts(berta, anna)));
await until("its key is backed up", async () => {
  const headers = { Authorization: `Bearer ${anna.getAccessToken()}` }; // the library would show what it remembers
  return (await (await fetch(`${alicesUrl}/_matrix/client/v3/room_keys/version`, { headers })).json()).count > 0;
});

const second = await signIn(alice);
await second.getCrypto().userHasCrossSigningKeys(second.getUserId(), true);
await second.getCrypto().bootstrapCrossSigning({});
const isVerified = async (client) =>
  (await client.getCrypto().getDeviceVerificationStatus(second.getUserId(), second.getDeviceId()))?.crossSigningVerified;
await until("the second device is verified by secret storage", () => isVerified(second));
await until("the first device sees it so", () => isVerified(anna));
if (dehydrates) {
  let keys = 0;
  second.on(CryptoEvent.RehydrationProgress, (count) => { keys = count; });
  await second.getCrypto().startDehydration();
  step("the dehydrated device was sent the room's keys", keys > 0);
}
await second.getCrypto().loadSessionBackupPrivateKeyFromSecretStorage();
const restored = await second.getCrypto().restoreKeyBackup({});
step("the backup is restored", restored.imported > 0 && restored.imported === restored.total);
await until("the second device reads what was said before", async () => {
  for (const event of second.getRoom(room)?.getLiveTimeline().getEvents() ?? []) await second.decryptEventIfNeeded(event);
  return read(second);
});
await until("it trusts whom the first one trusts", () => trusts(second, berta));
await until("the other user sees both devices", async () =>
  (await berta.getCrypto().getUserDeviceInfo([anna.getUserId()])).get(anna.getUserId())?.size === (dehydrates ? 3 : 2));
await berta.sendTextMessage(room, "to all devices");
await until("each of them is given the key of what is said then", () =>
  read(anna, "to all devices") && read(second, "to all devices"));

await anna.getCrypto().bootstrapCrossSigning({
  setupNewCrossSigning: true, authUploadDeviceSigningKeys: confirmBy(anna),
});
step("replacing the keys takes the password", (await anna.getCrypto().isCrossSigningReady()) && confirmations === 1);
await until("the other user sees the new keys", async () => {
  const theirs = await berta.getCrypto().getUserVerificationStatus(anna.getUserId());
  return (await berta.getCrypto().userHasCrossSigningKeys(anna.getUserId(), true)) && !theirs.isVerified();
});
process.exit(0);
