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

async function open(name, search) {
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
  await page.goto(pageUrl + search);
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

async function step(text, work) {
  console.log(text);
  await work;
}

const browsers = [];
async function browser(name, search) {
  const made = await open(name, search);
  browsers.push(made);
  return made;
}

const stories = {
  // Berta is a program on the API: she joins, answers "hello from the API" to what the browser says.
  async plain() {
    const a = await browser("anna", "");
    await step("anna signs in", signIn(a, anna, annaPassword));
    await a.page.fill("#invite", berta);
    await step("anna creates a room", a.page.click("#create-room"));
    await step("berta joins", member(a, berta));
    await step("anna speaks", say(a, "hello from the browser"));
    await step("anna hears", sees(a, "hello from the API"));
    await step("anna reloads", a.page.reload());
    await status(a, "signed in");
    await step("the browser's message is still there", sees(a, "hello from the browser"));
    await step("the other one too", sees(a, "hello from the API"));
  },
  // Both are browsers with the Rust crypto of matrix-js-sdk.
  async encrypted() {
    const a = await browser("anna", "?encrypted");
    const b = await browser("berta", "?encrypted");
    await step("both sign in", Promise.all([signIn(a, anna, annaPassword), signIn(b, berta, bertaPassword)]));
    await a.page.fill("#invite", berta);
    await step("anna creates an encrypted room", a.page.click("#create-room"));
    await step("berta joins", Promise.all([member(a, berta), member(b, anna)]));
    await step("anna speaks", say(a, "a secret of anna"));
    await step("berta reads it", sees(b, "🔒 " + anna + ": a secret of anna"));
    await step("berta answers", say(b, "a secret of berta"));
    await step("anna reads it", sees(a, "🔒 " + berta + ": a secret of berta"));
    await step("anna reloads", a.page.reload());
    await step("anna still reads both", Promise.all([sees(a, "a secret of anna"), sees(a, "a secret of berta")]));
  },
};

let failed = false;
try {
  await stories[story]();
} catch (error) {
  failed = true;
  console.log(`failed: ${error}`);
  for (const { name, page } of browsers) {
    console.log(`${name}: ${await page.locator("#status").textContent()} | ${await page.locator("#messages").innerText()}`);
    if (process.env.OUT) await page.screenshot({ path: join(process.env.OUT, `${name}.png`) });
  }
} finally {
  for (const { close } of browsers) await close();
  server.close();
}
process.exit(failed ? 1 : 0);
