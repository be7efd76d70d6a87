// SPDX-License-Identifier: Apache-2.0
// Files in messages, encrypted or not (client-server-api, "Sending encrypted attachments").

const base64 = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/=+$/, "");
const fromBase64 = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

/** Uploads a picture; the content of the message that shows it. */
export async function upload(client, blob, encrypted) {
  const content = { msgtype: "m.image", body: "picture.png", info: { mimetype: blob.type, size: blob.size } };
  if (!encrypted) {
    const { content_uri: url } = await client.uploadContent(blob, { name: "picture.png", type: blob.type });
    return { ...content, url };
  }
  const key = await crypto.subtle.generateKey({ name: "AES-CTR", length: 256 }, true, ["encrypt", "decrypt"]);
  const iv = new Uint8Array(16);
  crypto.getRandomValues(iv.subarray(0, 8));
  const locked = await crypto.subtle.encrypt({ name: "AES-CTR", counter: iv, length: 64 }, key, await blob.arrayBuffer());
  const { content_uri: url } = await client.uploadContent(new Blob([locked]), { type: "application/octet-stream" });
  const file = {
    v: "v2", url, iv: base64(iv), key: await crypto.subtle.exportKey("jwk", key),
    hashes: { sha256: base64(await crypto.subtle.digest("SHA-256", locked)) },
  };
  return { ...content, file };
}

/** The picture of such a message, as a URL for an <img>. */
export async function download(client, content) {
  const address = client.mxcUrlToHttp(content.file?.url ?? content.url, undefined, undefined, undefined, false, true, true);
  const response = await fetch(address, { headers: { Authorization: `Bearer ${client.getAccessToken()}` } });
  if (!response.ok) throw new Error(`download: ${response.status}`);
  let bytes = await response.arrayBuffer();
  if (content.file) {
    const key = await crypto.subtle.importKey("jwk", content.file.key, { name: "AES-CTR" }, false, ["decrypt"]);
    const counter = fromBase64(content.file.iv);
    bytes = await crypto.subtle.decrypt({ name: "AES-CTR", counter, length: 64 }, key, bytes);
  }
  return URL.createObjectURL(new Blob([bytes], { type: content.info.mimetype }));
}
