// SPDX-License-Identifier: Apache-2.0
// Drives the page in headless Chromium: node drive.mjs STORY HOMESERVER ANNA BERTA PASSWORDS…
// Exit status 0: everything was seen. Otherwise the last lines say what was waited for, and a screenshot lies in $OUT.
import { createServer } from "node:http";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const [story, homeserver, anna, annaPassword, berta, bertaPassword] = process.argv.slice(2);
const types = { ".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm" };
const root = fileURLToPath(new URL("dist", import.meta.url));
const SECONDS = 1000;

const server = createServer(async (request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, "http://page").pathname));
  try {
    const body = await readFile(join(root, path));
    response.writeHead(200, { "Content-Type": types[extname(path)] ?? "application/octet-stream" }).end(body);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const pageUrl = `http://127.0.0.1:${server.address().port}/page.html`;

async function open(name, url) {
  const profile = await mkdtemp(join(tmpdir(), "minihs-browser-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM,
    headless: true,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
  const page = await context.newPage();
  page.setDefaultTimeout(45 * SECONDS);
  page.on("console", (message) => {
    if (message.type() === "error") console.log(`[${name} console] ${message.text()}`);
  });
  page.on("pageerror", (error) => console.log(`[${name} error] ${error}`));
  await page.goto(url);
  return { name, page, close: async () => { await context.close(); await rm(profile, { recursive: true, force: true }); } };
}

async function signIn({ page }, user, password) {
  await page.fill("#homeserver", homeserver);
  await page.fill("#user", user);
  await page.fill("#password", password);
  await page.click("#sign-in");
  await status({ page }, "signed in");
}

const status = ({ page }, text) => page.locator("#status", { hasText: text }).waitFor();
const sees = ({ page }, text) => page.locator("#messages li", { hasText: text }).waitFor();
const member = ({ page }, user) => page.locator("#members li", { hasText: user }).waitFor();

async function say({ page }, text) {
  await page.fill("#text", text);
  await page.click("#send");
  await sees({ page }, text);
}

const app = ({ page }, name, ...given) => page.evaluate(([called, args]) => window.app[called](...args), [name, given]);
const idOf = ({ page }, text) => page.locator("#messages li", { hasText: text }).first().getAttribute("data-id");
const picture = ({ page }) => page.waitForFunction(() => document.querySelector("#messages img")?.naturalWidth === 16);

async function until(check) {
  const end = Date.now() + 45 * SECONDS;
  while (!await check()) {
    if (Date.now() > end) throw new Error("it did not come to that");
    await new Promise((done) => setTimeout(done, 100));
  }
}

const began = Date.now();
async function step(text, work) {
  console.log(`${((Date.now() - began) / 1000).toFixed(1)} s: ${text}`);
  return work();
}

const browsers = [];
async function browser(name, search, url = pageUrl + search) {
  const made = await open(name, url);
  browsers.push(made);
  return made;
}

const stories = {
  // Berta is a program on the API: she joins, answers "hello from the API" to what the browser says.
  async plain() {
    const a = await browser("anna", "");
    await step("anna signs in", () => signIn(a, anna, annaPassword));
    await a.page.fill("#invite", berta);
    await step("anna creates a room", () => a.page.click("#create-room"));
    await step("berta joins", () => member(a, berta));
    await step("anna speaks", () => say(a, "hello from the browser"));
    await step("anna hears", () => sees(a, "hello from the API"));
    await step("anna reloads", () => a.page.reload());
    await status(a, "signed in");
    await step("the browser's message is still there", () => sees(a, "hello from the browser"));
    await step("the other one too", () => sees(a, "hello from the API"));
  },
  // The link that `minihs user invite` prints, and what it leads to.
  async invitation() {
    const a = await browser("invited", "", homeserver);
    const fill = async (user, password, again) => {
      await a.page.fill("[name=user]", user);
      await a.page.fill("[name=password]", password);
      await a.page.fill("[name=again]", again);
      await a.page.click("button");
    };
    const told = (text) => a.page.locator("body", { hasText: text }).waitFor();
    await fill(anna, annaPassword, "something else");
    await step("a mistyped password is noticed", () => told("passwords differ"));
    await fill("Not a name!", annaPassword, annaPassword);
    await step("a name that can't be is refused", () => told("User names are made of"));
    await fill(anna, annaPassword, annaPassword);
    await step("the account is made", () => told(`Your account is @${anna}:`));
    await a.page.reload();
    await fill(berta, annaPassword, annaPassword);
    await step("the link is good once", () => told("Registration is closed"));
  },
  // Both are browsers with the Rust crypto of matrix-js-sdk; Anna has a second one in the end.
  async everything() {
    const a = await browser("anna", "?encrypted");
    const b = await browser("berta", "?encrypted");
    await step("both sign in", () => Promise.all([signIn(a, anna, annaPassword), signIn(b, berta, bertaPassword)]));
    const [recoveryKey] = await step("both set up cross-signing and recovery",
      () => Promise.all([app(a, "setUp"), app(b, "setUp")]));
    const plain = await conversation(a, b, false);
    const secret = await conversation(a, b, true);
    await step("the keys are backed up", () => until(async () => await app(a, "backedUp") >= 2));
    for (const each of [a, b]) {
      await step(`${each.name} reloads`, () => each.page.reload());
      await status(each, "signed in");
      for (const [room, lock] of [[secret, "🔒 "], [plain, ""]]) {
        await app(each, "open", room);
        await step(`${each.name} still sees everything ${lock}`, () => seesAll(each, lock));
      }
    }
    const second = await browser("anna-2", "?encrypted");
    await step("anna signs in on a second device", () => signIn(second, anna, annaPassword));
    await step("she restores the keys", async () => {
      if (await app(second, "recover", recoveryKey) < 2) throw new Error("there are too few keys in the backup");
    });
    for (const [room, lock] of [[secret, "🔒 "], [plain, ""]]) {
      await app(second, "open", room);
      await step(`she sees everything there ${lock}`, () => seesAll(second, lock));
    }
    await app(second, "open", secret);
    await app(b, "open", secret);
    await step("berta speaks to both", () => say(b, "to all devices"));
    await step("the new device reads it", () => sees(second, `🔒 ${berta}: to all devices`));
    if (process.env.OUT) await second.page.screenshot({ path: join(process.env.OUT, "second.png") });
  },
};

// A red square of 16 pixels.
const PICTURE = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAGElEQVR42mP8z0AaYCJR/aiGUQ1DSAMAQC4BH2bjRnMAAAAASUVORK5CYII=", "base64");

async function conversation(a, b, encrypted) {
  const lock = encrypted ? "🔒 " : "";
  await a.page.fill("#invite", berta);
  await a.page.setChecked("#encrypt", encrypted);
  const before = await app(b, "room");
  await step(`anna creates a room ${lock}`, () => a.page.click("#create-room"));
  await step("berta joins", async () => {
    await until(async () => await app(b, "room") !== before);
    await Promise.all([member(a, berta), member(b, anna)]);
  });
  await step("anna speaks", () => say(a, "good morning"));
  await step("berta hears it", () => sees(b, `${lock}${anna}: good morning`));
  await step("berta shows a picture", () => app(b, "image", [...PICTURE]));
  await step("anna sees it", () => picture(a));
  await app(b, "reply", await idOf(b, "good morning"), "and to you");
  await step("anna sees the answer to her message", () => sees(a, "↳ good morning: and to you"));
  await app(a, "react", await idOf(a, "and to you"), "👍");
  await step("berta sees the reaction", () => sees(b, "and to you 👍1"));
  await step("berta makes a mistake", () => say(b, "it is reining"));
  await app(b, "edit", await idOf(b, "it is reining"), "it is raining");
  await step("anna sees it mended", () => sees(a, "it is raining (edited)"));
  await step("anna says too much", () => say(a, "my password is swordfish"));
  await step("berta hears that, too", () => sees(b, "swordfish"));
  await app(a, "redact", await idOf(a, "swordfish"));
  await step("it is gone", () => sees(b, `${anna}: removed`));
  await step("anna says the last word", () => say(a, "good night"));
  await sees(b, "good night");
  await app(b, "read");
  await step("anna sees that it was read", () => sees(a, `good night read by ${berta}`));
  await seesAll(a, lock);
  return app(a, "room");
}

async function seesAll(one, lock) {
  const lines = [`${anna}: good morning`, `${berta}: ↳ good morning: and to you 👍1`, `${berta}: it is raining (edited)`,
    `${anna}: good night`];
  for (const line of lines) await sees(one, lock + line);
  await sees(one, `${anna}: removed`);
  await picture(one);
  if (await one.page.locator("#messages li", { hasText: /swordfish|reining|nable to decrypt/ }).count()) {
    throw new Error("something is seen that should not be");
  }
}

let failed = false;
try {
  await stories[story]();
} catch (error) {
  failed = true;
  console.log(`failed: ${error}`);
  for (const { name, page } of browsers) {
    console.log(`${name}: ${await page.locator("body").innerText()}`);
    if (process.env.OUT) await page.screenshot({ path: join(process.env.OUT, `${name}.png`) });
  }
} finally {
  for (const { close } of browsers) await close();
  server.close();
}
process.exit(failed ? 1 : 0);
