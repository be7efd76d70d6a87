// SPDX-License-Identifier: Apache-2.0
// What the stories under Node.js are told with: matrix-js-sdk, one line of output per step, an end at the first failure.
Promise.withResolvers ??= function () { // Node.js before 22
  let resolve, reject;
  const promise = new Promise((yes, no) => { resolve = yes; reject = no; });
  return { promise, resolve, reject };
};
const sdk = await import("matrix-js-sdk");

const PATIENCE_MS = 30_000;

export function step(name, good) {
  console.log(good ? "ok  " : "FAIL", name);
  if (!good) process.exit(1);
}

export async function until(name, check) {
  const end = Date.now() + PATIENCE_MS;
  while (Date.now() < end) {
    const found = await check();
    if (found) { step(name, true); return found; }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  step(name, false);
}

export async function logIn(baseUrl, user, password, options = {}) {
  const session = await sdk.createClient({ baseUrl }).loginRequest({
    type: "m.login.password", identifier: { type: "m.id.user", user }, password,
  });
  const client = sdk.createClient({
    baseUrl, userId: session.user_id, accessToken: session.access_token, deviceId: session.device_id, ...options,
  });
  await client.initRustCrypto({ useIndexedDB: false });
  return client;
}
