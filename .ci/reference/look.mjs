// Looks at the reference page in headless Chromium: node look.mjs URL development|production [SCREENSHOTS]
//
// Nothing may break the page's policy or go to another host, operations of the document
// must open with their parameters and answers, and calls can be made in development alone.
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

const [url, env, shots] = process.argv.slice(2);
const program = process.env.CHROMIUM ?? ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
const problems = [];
const document = await (await fetch(`${url}/openapi.json`)).json();
const ids = Object.values(document.paths).flatMap((path) => Object.values(path).map((o) => [o.tags[0], o.operationId]));
ids.push(...Object.values(document.webhooks).map((hook) => [hook.post.tags[0], hook.post.operationId]));

const browser = await chromium.launch({ executablePath: program, args: ["--no-sandbox"] });
const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: "reduce" });
const page = await context.newPage();
page.on("console", (m) => m.type() === "error" && problems.push(`console: ${m.text()}`));
page.on("pageerror", (e) => problems.push(`script: ${e.message}`));
page.on("request", (r) => {
  if (!r.url().startsWith(`${url}/`) && !r.url().startsWith("data:")) problems.push(`asked for ${r.url()}`);
});
await page.addInitScript(() => {
  addEventListener("securitypolicyviolation", (e) => console.error(`policy: ${e.violatedDirective} ${e.blockedURI}`));
});

const answer = await page.goto(`${url}/docs`);
if (!answer.headers()["content-security-policy"]?.includes("default-src 'none'")) problems.push("there is no strict policy");
await page.waitForSelector(".opblock", { timeout: 60_000 });
if (shots) await page.screenshot({ path: `${shots}/${env}.png` });

// What is shown of the whole document, then of each operation.
const title = await page.textContent(".info .title");
if (!title.includes(document.info.title) || !title.includes("OAS 3.1")) problems.push(`the title is ${title}`);
if (await page.isVisible(".errors-wrapper")) problems.push(`errors are shown: ${await page.textContent(".errors-wrapper")}`);
// Both pages are made of the same document: in production, every sixth is opened.
const looked = env === "production" ? ids.filter((_, i) => i % 6 === 0) : ids;
const shown = await page.$$eval(".opblock", (all) => all.map((o) => o.id));
let opened = 0;
for (const [tag, id] of looked) {
  const block = shown.find((s) => s === `operations-${tag}-${id}` || s.endsWith(`-${id}`));
  if (!block) {
    problems.push(`${id} is not shown`);
    continue;
  }
  const operation = page.locator(`[id="${block}"]`);
  await operation.locator(".opblock-summary-control").first().click();
  try {
    await operation.locator(".responses-wrapper .response").first().waitFor({ timeout: 20_000 });
    opened++;
  } catch {
    problems.push(`${id} does not open`);
  }
  const tries = await operation.locator(".try-out").count();
  if (env === "production" && tries > 0) problems.push(`${id} can be called from the page in production`);
  if (shots && (id === "createApiKey" || id === "receiveClassic")) await operation.screenshot({ path: `${shots}/${env}-${id}.png` });
  await operation.locator(".opblock-summary-control").first().click();
}
const authorize = await page.locator(".auth-wrapper .authorize").count();
if (env === "production" && authorize > 0) problems.push("the page takes a credential in production");

// A call, as a person would make one.
if (env === "development") {
  await page.locator("[id$=-getHealth] .opblock-summary-control").click();
  await page.locator("[id$=-getHealth] .execute").click();
  const body = page.locator("[id$=-getHealth] .live-responses-table .response-col_description code").first();
  await body.waitFor({ timeout: 20_000 });
  if (!(await body.textContent()).includes('"ok"')) problems.push(`a call was answered ${await body.textContent()}`);
}
const kept = await page.evaluate(() => localStorage.length + sessionStorage.length + document.cookie.length);
if (kept > 0) problems.push("the page keeps something");
await browser.close();

if (problems.length > 0) {
  console.log(problems.join("\n"));
  process.exit(1);
}
console.log(`${env}: ${opened} operations open, nothing is asked of others, and nothing breaks the policy`);
