// What the scripts that look at the page share: the browser, pages that note all that goes wrong, and what a
// person does on the page, found as a person finds it: by names, roles and keys.
import chromium from "@sparticuz/chromium";
import { chromium as playwright } from "playwright-core";

export const WIDE = { width: 1280, height: 900 };
export const PHONE = { width: 390, height: 844 };
/** A name of this machine by which no browser knows that it is this machine: its pages are no secure context. */
const LAN_NAME = "moa.test";

// Drawn in software, in the browser's own process: look.mjs says why.
const SOFTWARE_GL = ["--in-process-gpu", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"];
/**
 * Drawn without OpenGL. A machine with a GPU draws beside its processor; OpenGL in software takes a core of it, and
 * makes the page's own tasks longer by the clock. Screenshots may fail.
 */
export const NO_GL = ["--disable-gpu"];

export async function launch({ drawing = SOFTWARE_GL } = {}) {
  return playwright.launch({
    executablePath: await chromium.executablePath(),
    args: [
      "--no-sandbox",
      ...drawing,
      `--host-resolver-rules=MAP ${LAN_NAME} 127.0.0.1`,
      "--enable-precise-memory-info",
    ],
  });
}

/** The same endpoint as other machines of a network reach it, without TLS. */
export function asOnTheNetwork(url) {
  return url.replace("127.0.0.1", LAN_NAME);
}

/** A context of its own: its pages share no chats, keys or settings with those of others. */
export async function fresh(browser, viewport = WIDE, colorScheme = "light") {
  const isPhone = viewport.width < 600;
  const context = await browser.newContext({ viewport, colorScheme, hasTouch: isPhone, reducedMotion: "reduce" });
  // What a page may not do under its policy is noted by the page itself, in each of its documents.
  await context.addInitScript(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => {
      window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
    });
  });
  return context;
}

/**
 * A page of an endpoint. `page.seen` notes what goes wrong in it.
 *
 * said: errors and warnings of the console, errors of scripts, dialogs; foreign: requests to other hosts;
 * keys: URLs of requests, to look for keys in.
 */
export async function open(context, url, path = "/") {
  const page = await context.newPage();
  const seen = { said: [], foreign: [], urls: [] };
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && seen.said.push(message.text()));
  page.on("pageerror", (error) => seen.said.push(String(error)));
  page.on("dialog", (dialog) => {
    seen.said.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("request", (request) => {
    seen.urls.push(request.url());
    if (!request.url().startsWith(`${url}/`) && !/^(data|blob):/.test(request.url())) seen.foreign.push(request.url());
  });
  page.seen = seen;
  await page.goto(url + path);
  await page.locator(".page").waitFor();
  return page;
}

/** What went wrong in a page. Refused requests are errors of the console too, and some are expected. */
export async function wrong(page, { refusals = false } = {}) {
  const said = page.seen.said.filter((words) => !refusals || !/^Failed to load resource.*status of 4\d\d/.test(words));
  return { said, foreign: page.seen.foreign, violations: await page.evaluate(() => window.violations) };
}

/** Type a question and send it. */
export async function ask(page, question) {
  await page.getByRole("textbox", { name: "Question" }).fill(question);
  await page.keyboard.press("Enter");
}

/** Wait until the last answer is over, and give its element. */
export async function answered(page, timeout = 30_000) {
  const answer = page.locator("article.turn").last().locator("section.answer");
  await answer.and(page.locator("[aria-busy=false]")).waitFor({ timeout });
  return answer;
}

/** A button of the last answer. */
export function tool(page, name) {
  return page.locator("article.turn").last().getByRole("button", { name, exact: true });
}

export async function counts(url) {
  return (await fetch(`${url}/test/counts`)).json();
}

/** Wait until a function gives something true, and give that. */
export async function until(check, timeout = 10_000, every = 50) {
  const end = Date.now() + timeout;
  for (;;) {
    const found = await check();
    if (found) return found;
    if (Date.now() > end) throw new Error(`not within ${timeout} ms: ${check}`);
    await new Promise((resolve) => setTimeout(resolve, every));
  }
}
