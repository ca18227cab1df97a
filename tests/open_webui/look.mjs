// Asks a question in Open WebUI, and prints as JSON what a person sees of the answer, and when.
//     node look.mjs URL QUESTION FOLDER-FOR-SCREENSHOTS LONGEST-SECONDS
// Moments are seconds since 1970, as other programs of this machine count them.
import chromium from "@sparticuz/chromium";
import { chromium as playwright } from "playwright-core";

const [url, question, folder, longest] = process.argv.slice(2);
const until = Date.now() + 1000 * Number(longest);
const now = () => Date.now() / 1000;

const browser = await playwright.launch({
  executablePath: await chromium.executablePath(),
  args: (process.env.BROWSER_ARGS ?? "--no-sandbox --disable-gpu").split(" "),
});
// Without a locale the browser has that of the C library (en-US@POSIX), which Open WebUI cannot read.
const tab = await browser.newPage({ viewport: { width: 1280, height: 900 }, locale: "en-US", timezoneId: "UTC" });
const problems = [];
tab.on("pageerror", (error) => problems.push(String(error)));
await tab.goto(url);
await tab.waitForSelector("#chat-input", { timeout: 60_000 });
const news = tab.getByRole("button", { name: /Okay/ });
await news.first().click({ timeout: 5_000 }).catch(() => {});

// The page itself notes what it shows, at the moment at which it shows it, and opens the fold at once,
// as a person does. The fold's head says "Thinking..." and then "Thought for ...".
await tab.evaluate(() => {
  const noted = window.noted = {};
  new MutationObserver(() => {
    const message = [...document.querySelectorAll("#response-content-container")].at(-1);
    const head = [...(message?.querySelectorAll("button") ?? [])].find((button) => button.textContent.includes("Thinking..."));
    if (head && !noted.fold_at) { noted.fold_at = Date.now() / 1000; head.click(); }
    if (noted.proposals_at) return;
    const inside = message?.querySelector("blockquote")?.textContent;
    if (/\(proposal \d+ of \d+\)\s*\S/.test(inside)) noted.proposals_at = Date.now() / 1000;
  }).observe(document.body, { childList: true, subtree: true, characterData: true });
});
await tab.click("#chat-input");
await tab.keyboard.type(question);
await tab.keyboard.press("Enter");
const seen = { asked_at: now(), grown: [] };
await tab.waitForFunction(() => window.noted.proposals_at, null, { timeout: until - Date.now(), polling: 100 });
await tab.screenshot({ path: `${folder}/1-proposals.png` });

// What stands in the fold, and what stands below it: the answer.
const read = () => tab.evaluate(() => {
  const message = [...document.querySelectorAll("#response-content-container")].at(-1);
  const quote = message.querySelector("blockquote");
  const inside = quote?.innerText ?? "";
  const rest = message.innerText.replace(inside, "").replace(/^\s*(Thinking|Thought)[^\n]*\n?/, "");
  const last = [...document.querySelectorAll("[aria-label='Regenerate']")].length;
  return { inside, answer: rest.trim(), ended: last > 0 };
});
let shots = 1;
for (let before = "", look; Date.now() < until; await tab.waitForTimeout(200)) {
  look = await read();
  if (look.inside !== before) {
    seen.grown.push({ at: now(), characters: look.inside.length });
    before = look.inside;
    if (seen.grown.length === 8) await tab.screenshot({ path: `${folder}/${++shots}-growing.png` });
  }
  if (look.answer && !seen.answer_at) {
    seen.answer_at = now();
    await tab.screenshot({ path: `${folder}/${++shots}-answer.png`, fullPage: true });
  }
  Object.assign(seen, { proposals: look.inside, answer: look.answer });
  if (look.ended) { seen.ended_at = now(); break; }
}
await tab.screenshot({ path: `${folder}/${++shots}-end.png`, fullPage: true });
// The page asks for follow-ups and a title after the answer.
for (; Date.now() < until && !seen.title; await tab.waitForTimeout(500)) {
  const title = (await tab.title()).replace(/\s*[/•|].*$/, "");
  if (title && !/New Chat|Open WebUI/.test(title)) Object.assign(seen, { title, title_at: now() });
}
await tab.waitForTimeout(3_000);
await tab.screenshot({ path: `${folder}/${++shots}-after.png`, fullPage: true });
Object.assign(seen, await tab.evaluate(() => window.noted));
await browser.close();
console.log(JSON.stringify({ ...seen, problems }));
