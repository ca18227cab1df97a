// Uses the page as people do, in a headless Chromium, and prints as JSON what was seen in each flow.
//     node page_flows.mjs URLS FOLDER-FOR-FILES [FLOW...]
// URLS is what page_server.py prints.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { answered, ask, asOnTheNetwork, counts, fresh, launch, open, PHONE, tool, until, WIDE, wrong } from "./page_browser.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
/** Most seconds that a flow may take. */
const MOST_S = 100;
const QUESTION = "Why is the sky blue?";
const [urlsAsJson, folder, ...only] = process.argv.slice(2);
const urls = JSON.parse(urlsAsJson);

/** The columns of the last turn: name, phase, and how much text they have. */
function columns(page) {
  return page.locator("article.turn").last().locator("section.column").evaluateAll((all) =>
    all.map((column) => ({
      name: column.getAttribute("aria-label"),
      phase: column.querySelector(".phase-words").textContent,
      detail: column.querySelector(".detail")?.textContent ?? "",
      length: column.querySelector(".column-text").textContent.length,
    })),
  );
}

/** Collects what a screen reader is told. */
async function listen(page) {
  await page.evaluate(() => {
    window.heard = [];
    new MutationObserver((changes) => {
      for (const { target } of changes) {
        const region = (target.nodeType === 1 ? target : target.parentElement)?.closest("[aria-live=polite], [role=status], [role=alert]");
        const words = region?.textContent.trim();
        if (words && window.heard.at(-1) !== words) window.heard.push(words);
      }
    }).observe(document.body, { subtree: true, childList: true, characterData: true });
  });
}

async function axe(page, where) {
  if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return violations.map(({ id, nodes }) => `${where}: ${id}: ${nodes.map(({ html }) => html.slice(0, 160)).join(" | ")}`);
}

/** The text of the conversation once its formulas are drawn: until then the text has their source. */
async function drawn(page) {
  const read = () => page.locator("[role=log]").innerText();
  await until(async () => (await page.locator(".math-drawn").count()) > 1 && !(await read()).includes("\\lambda"));
  return read();
}

const flows = {
  /** Three columns grow at once, the third is late, the answer follows, and a reload keeps all. */
  async growth(browser) {
    const context = await fresh(browser);
    const page = await open(context, urls.growth);
    await listen(page);
    const asked = page.waitForRequest((request) => request.method() === "POST");
    await ask(page, QUESTION);
    const body = (await asked).postDataJSON();
    const samples = [];
    await until(async () => {
      samples.push(await columns(page));
      return (await page.locator("section.answer").count()) > 0;
    });
    const answer = await answered(page);
    const seen = { body, samples, columns: await columns(page), answer: await answer.innerText() };
    seen.heard = await page.evaluate(() => window.heard);
    seen.log = await page.locator("[role=log]").getAttribute("aria-live");
    seen.focus = await page.evaluate(() => document.activeElement.id);
    seen.before = await drawn(page);
    await answer.locator("summary", { hasText: "degraded" }).click();
    seen.reasons = await answer.locator(".reasons").innerText();
    await tool(page, "Why").click();
    await tool(page, "Times").click();
    await answer.locator("div.times table").waitFor({ state: "attached" });
    seen.times = await answer.locator("div.times").innerText();
    await page.reload();
    await answered(page);
    seen.after = await drawn(page);
    seen.address = page.url();
    return { ...seen, ...(await wrong(page)) };
  },

  /** Esc ends the stream, and with it all work of the engines. A busy machine may take several tries. */
  async stop(browser) {
    const page = await open(await fresh(browser), urls.endless);
    const tries = [];
    for (let n = 1; n <= 5 && !tries.some(({ ms }) => ms <= 1000); n += 1) {
      await ask(page, QUESTION);
      await until(async () => (await counts(urls.endless)).started === 3 * n);
      await until(async () => (await columns(page)).some(({ length }) => length > 50));
      const before = await counts(urls.endless);
      const pressed = performance.now();
      await page.keyboard.press("Escape");
      const after = await until(async () => {
        const now = await counts(urls.endless);
        return now.in_flight === 0 && now;
      }, 5_000, 10);
      tries.push({ before, after, ms: performance.now() - pressed });
      await page.getByRole("button", { name: "Send the question" }).waitFor();
    }
    const focus = await page.evaluate(() => document.activeElement.id);
    return { tries, text: await page.locator("article.turn").last().innerText(), focus, ...(await wrong(page)) };
  },

  /** No key, a wrong one, the right one; then the key is removed while an answer is written. No TLS here. */
  async keys(browser) {
    const url = asOnTheNetwork(urls.keys);
    const context = await fresh(browser);
    const page = await open(context, url);
    const dialog = page.getByRole("dialog");
    const type = async (key) => {
      await dialog.getByLabel("Key", { exact: true }).fill(key);
      await page.keyboard.press("Enter");
    };
    await dialog.waitFor();
    const seen = { isSecure: await page.evaluate(() => isSecureContext), without: await dialog.getByRole("alert").innerText() };
    await type("sk-slimmoa-wrong");
    await until(async () => (await dialog.count()) > 0 && (await dialog.getByRole("alert").innerText()) !== seen.without);
    seen.wrong = await dialog.getByRole("alert").innerText();
    const headers = [];
    page.on("request", async (request) => headers.push(await request.headerValue("authorization")));
    await type(urls.key);
    await page.getByLabel("Recipe or model").waitFor();
    await ask(page, QUESTION);
    await until(async () => (await columns(page)).some(({ length }) => length > 20));
    await fetch(`${urls.keys}/test/keys`, { method: "POST", body: JSON.stringify({ valid: false }) });
    await dialog.waitFor();
    seen.removed = await dialog.getByRole("alert").innerText();
    seen.answer = await (await answered(page)).innerText();
    await fetch(`${urls.keys}/test/keys`, { method: "POST", body: JSON.stringify({ valid: true }) });
    seen.stores = await page.evaluate(() => [Object.values(sessionStorage), Object.values(localStorage)]);
    seen.withKey = headers.filter((header) => header === `Bearer ${urls.key}`).length;
    seen.inUrls = [...page.seen.urls, page.url()].filter((each) => each.includes(urls.key));
    await page.reload();
    await page.getByLabel("Recipe or model").waitFor();
    const other = await open(context, url);
    seen.otherTab = await other.getByRole("dialog").innerText();
    const { said, ...rest } = await wrong(page, { refusals: true });
    // Chromium says that it heeds this header over TLS only.
    return { ...seen, ...rest, said: said.filter((words) => !/Cross-Origin-Opener-Policy/.test(words)) };
  },

  /** Texts that attack the page. */
  async hostile(browser) {
    const page = await open(await fresh(browser), urls.hostile);
    await ask(page, "Attack.");
    await answered(page, 60_000);
    const seen = { columns: (await columns(page)).map(({ phase }) => phase) };
    const before = performance.now();
    await page.evaluate(() => 1);
    seen.ms = performance.now() - before;
    seen.attacked = await page.evaluate(() => window.attacked ?? null);
    seen.elements = await page.locator("[role=log]").evaluate((log) =>
      [...log.querySelectorAll("script, iframe, object, embed, form, style, link, meta, base, video, audio")].map((each) => each.outerHTML.slice(0, 100)),
    );
    seen.handlers = await page.locator("[role=log]").evaluate((log) =>
      [...log.querySelectorAll("*")].flatMap((each) => each.getAttributeNames().filter((name) => /^on|^style$/.test(name))),
    );
    seen.links = await page.locator("[role=log] a").evaluateAll((all) => all.map((a) => [a.protocol, a.target, a.rel]));
    seen.images = await page.locator("[role=log] img").evaluateAll((all) => all.map((image) => image.src));
    seen.visible = await page.locator("[role=log]").isVisible();
    return { ...seen, ...(await wrong(page)) };
  },

  /** A failed answer, and a proposal that stands in. */
  async failures(browser) {
    const context = await fresh(browser);
    const failing = await open(context, urls.failing);
    await ask(failing, QUESTION);
    await failing.getByRole("alert").first().waitFor();
    const seen = { failed: await failing.locator("article.turn").innerText() };
    const standing = await open(context, urls["standing-in"]);
    await ask(standing, QUESTION);
    seen.stood = await (await answered(standing)).innerText();
    const said = [...(await wrong(failing, { refusals: true })).said, ...(await wrong(standing)).said];
    return { ...seen, said };
  },

  /** Two proposals agree: one of them is the answer, and the third was not needed. */
  async agreeing(browser) {
    const page = await open(await fresh(browser), urls.agreeing);
    await listen(page);
    await ask(page, QUESTION);
    const answer = await answered(page);
    await tool(page, "Why").click();
    await answer.locator("dl.why").waitFor();
    const seen = { columns: await columns(page), answer: await answer.innerText() };
    seen.heard = await page.evaluate(() => window.heard);
    seen.axe = await axe(page, "agreeing");
    return { ...seen, ...(await wrong(page)) };
  },

  /** Over the limit of requests a minute (429). */
  async limited(browser) {
    const page = await open(await fresh(browser), urls.limited);
    await ask(page, QUESTION);
    await answered(page);
    await ask(page, "And at night?");
    await page.getByRole("alert").first().waitFor();
    return { text: await page.locator("article.turn").last().innerText(), ...(await wrong(page, { refusals: true })) };
  },

  /** Fuse again: with one proposal less, and by another aggregator; no proposer is asked. */
  async fuse(browser) {
    const page = await open(await fresh(browser), urls.turns);
    await ask(page, QUESTION);
    await answered(page);
    const before = await counts(urls.turns);
    await tool(page, "Fuse again").click();
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("group", { name: /llama-70b/ }).getByText("Leave out").click();
    await dialog.getByLabel("Who writes or picks the answer").selectOption("qwen-72b");
    const methods = await dialog.getByLabel("How the answer is made").locator("option").evaluateAll((all) => all.map(({ value }) => value));
    const asked = page.waitForRequest((request) => request.method() === "POST");
    await dialog.getByRole("button", { name: "Fuse again" }).click();
    const body = (await asked).postDataJSON();
    await until(async () => /qwen-72b/.test(await (await answered(page)).innerText()));
    const after = await counts(urls.turns);
    const versions = await page.getByRole("group", { name: "Answers to this question" }).innerText();
    return { calls: after.started - before.started, moa: body.moa, methods, versions, ...(await wrong(page)) };
  },

  /** A blind vote, what is hidden before and shown after, and the file of votes. */
  async vote(browser) {
    const page = await open(await fresh(browser), urls.turns);
    await ask(page, QUESTION);
    await answered(page);
    await tool(page, "Compare").click();
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("article").first().waitFor();
    const seen = { blind: await dialog.innerText() };
    await dialog.getByRole("button", { name: "The first is better" }).click();
    await dialog.getByRole("status").waitFor();
    seen.revealed = await dialog.innerText();
    seen.canVote = await dialog.getByRole("button", { name: "The first is better" }).count();
    await page.keyboard.press("Escape");
    seen.votes = await download(page, async () => {
      await tool(page, "Export").click();
      await dialog.getByRole("button", { name: "Save votes" }).click();
    }, "votes.json");
    return { ...seen, ...(await wrong(page)) };
  },

  /** All chats leave the browser as a file, and another browser reads the file. */
  async moving(browser) {
    const page = await open(await fresh(browser), urls.turns);
    for (const question of [QUESTION, "And at night?"]) {
      await ask(page, question);
      await answered(page);
    }
    // Texts are drawn piece by piece, so the text counts once it has stopped to change.
    let before = "";
    await until(async () => {
      const earlier = before;
      await page.waitForTimeout(200);
      before = await page.locator("[role=log]").innerText();
      return before === earlier;
    });
    const chats = await download(page, async () => {
      await tool(page, "Export").click();
      await page.getByRole("dialog").getByRole("button", { name: "Save all as JSON" }).click();
    }, "chats.json");
    const other = await open(await fresh(browser), urls.turns);
    const load = async (file) => {
      await other.getByRole("button", { name: "Chats" }).click();
      await other.getByRole("button", { name: "Export and import" }).click();
      await other.locator("dialog input[type=file]").setInputFiles(file);
    };
    await load({ name: "x.json", mimeType: "application/json", buffer: Buffer.from('{"format": "other"}') });
    const refused = await other.getByRole("dialog").getByRole("alert").innerText();
    await other.reload();
    await load(`${folder}/chats.json`);
    await until(async () => (await other.locator(".chat-name").count()) > 0);
    if (await other.getByRole("dialog").count()) await other.keyboard.press("Escape");
    if ((await other.locator("article.turn").count()) === 0) await other.locator(".chat-name").first().click();
    const log = other.locator("[role=log]");
    await until(async () => (await log.innerText()) === before, 20_000).catch(() => undefined);
    return { before, after: await log.innerText(), refused, chats: JSON.parse(chats).chats.length, ...(await wrong(other)) };
  },

  /** Everything with keys alone. */
  async keyboard(browser) {
    const page = await open(await fresh(browser), urls.turns);
    const focus = () => page.evaluate(() => document.activeElement.closest("[data-region]")?.dataset.region ?? document.activeElement.id);
    const name = () => page.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.getAttribute("aria-label"));
    const press = async (...keys) => { for (const key of keys) await page.keyboard.press(key); };
    const tabTo = async (pattern, key = "Tab") => {
      for (let n = 0; n < 80; n += 1) {
        if (pattern.test((await name()) ?? "")) return;
        await press(key);
      }
      throw new Error(`${key} leads to no ${pattern}`);
    };
    const seen = { begins: await page.evaluate(() => document.activeElement.id) };
    await page.keyboard.type("First line");
    await press("Shift+Enter");
    await page.keyboard.type("Second line");
    await press("Enter");
    await answered(page);
    seen.question = await page.locator("h2.question").innerText();
    seen.stays = await page.evaluate(() => document.activeElement.id);
    await press("Alt+2");
    seen.large = await page.locator("section.column.large h3").allInnerTexts();
    await press("Alt+2");
    seen.regions = [];
    for (let n = 0; n < 4; n += 1) {
      await press("F6");
      seen.regions.push(await focus());
    }
    await press("Control+/");
    seen.help = await page.getByRole("dialog").innerText();
    await press("Escape");
    await tabTo(/^Fuse again$/, "Shift+Tab");
    await press("Enter");
    await page.getByRole("dialog").waitFor();
    await tabTo(/^Fuse again$/);
    await press("Enter");
    await page.getByRole("group", { name: "Answers to this question" }).waitFor();
    await answered(page);
    await tabTo(/^Compare$/, "Shift+Tab");
    await press("Enter");
    await tabTo(/^Both are equally good$/);
    await press("Enter");
    seen.voted = await page.getByRole("dialog").getByRole("status").innerText();
    await press("Escape", "Control+k");
    await until(async () => (await page.locator("article.turn").count()) === 0);
    await page.waitForTimeout(200);
    seen.ends = await page.evaluate(() => document.activeElement.id);
    // Each element that gets the focus shows it.
    seen.unseen = [];
    for (let n = 0; n < 12; n += 1) {
      await press("Tab");
      const isSeen = await page.evaluate(() => {
        const { outlineStyle, boxShadow } = getComputedStyle(document.activeElement);
        return document.activeElement === document.body || outlineStyle !== "none" || boxShadow !== "none";
      });
      if (!isSeen && (await focus()) !== "composer") seen.unseen.push(await name()); // there, the frame shows it
    }
    return { ...seen, ...(await wrong(page)) };
  },

  /** A phone's screen: tabs, nothing wider than the screen, the composer at the bottom. */
  async phone(browser) {
    const page = await open(await fresh(browser, PHONE), urls.growth);
    await ask(page, QUESTION);
    await page.getByRole("tab", { name: /^Proposal 3/ }).waitFor();
    const seen = { tabs: await page.getByRole("tab").allInnerTexts(), widths: [] };
    await answered(page);
    for (const tab of await page.getByRole("tab").all()) {
      await tab.click();
      seen.widths.push(await page.evaluate(() => document.documentElement.scrollWidth));
    }
    const composer = await page.getByRole("textbox", { name: "Question" }).boundingBox();
    seen.below = PHONE.height - composer.y - composer.height;
    return { ...seen, ...(await wrong(page)) };
  },

  /** Axe's rules at two widths, light and dark, with all that can be open. */
  async axe(browser) {
    const page = await open(await fresh(browser), urls.growth);
    const found = [...(await axe(page, "empty"))];
    await ask(page, QUESTION);
    await until(async () => (await page.locator(".phase-words").count()) >= 3);
    found.push(...(await axe(page, "writing")));
    await answered(page);
    await page.locator("summary", { hasText: "degraded" }).click();
    await tool(page, "Why").click();
    await tool(page, "Times").click();
    await page.locator("div.times table").waitFor({ state: "attached" });
    await page.getByRole("button", { name: /^Card/ }).click();
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      found.push(...(await axe(page, `wide, ${colorScheme}, answer`)));
      for (const [name, button] of Object.entries(dialogs(page))) {
        if (colorScheme === "dark" && name !== "Compare") continue;
        await button.click();
        await page.getByRole("dialog").locator("h2").waitFor();
        found.push(...(await axe(page, `wide, ${colorScheme}, ${name}`)));
        await page.keyboard.press("Escape");
      }
    }
    await page.getByRole("button", { name: /^Card/ }).click();
    await page.getByRole("button", { name: "Chats", exact: true }).click();
    found.push(...(await axe(page, "wide, dark, chats")));
    await page.keyboard.press("Escape");
    await page.setViewportSize(PHONE);
    for (const colorScheme of ["dark", "light"]) {
      await page.emulateMedia({ colorScheme });
      for (const name of colorScheme === "dark" ? ["Answer", "Card"] : ["Answer", /^Proposal 3/, "Time", "Card"]) {
        await page.getByRole("tab", { name }).click();
        found.push(...(await axe(page, `phone, ${colorScheme}, ${name}`)));
      }
    }
    return { axe: found };
  },
};

/** What opens each dialog. */
function dialogs(page) {
  return {
    "Fuse again": tool(page, "Fuse again"),
    Compare: tool(page, "Compare"),
    Export: tool(page, "Export"),
    Key: page.getByRole("button", { name: /^Key/ }),
    Help: page.getByRole("button", { name: "Help and keys" }),
  };
}

/** The text of a file that the page gives. */
async function download(page, begin, name) {
  const [file] = await Promise.all([page.waitForEvent("download"), begin()]);
  await file.saveAs(`${folder}/${name}`);
  return readFileSync(`${folder}/${name}`, "utf8");
}

/** What a flow gives, if it gives it in time: one that hangs must not take the others with it. */
async function within(seconds, work) {
  let timer;
  const late = new Promise((_, refuse) => {
    timer = setTimeout(() => refuse(new Error(`the flow took more than ${seconds} s`)), seconds * 1000);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

const browser = await launch();
const found = {};
for (const [name, flow] of Object.entries(flows)) {
  if (only.length > 0 && !only.includes(name)) continue;
  const began = performance.now();
  try {
    found[name] = await within(MOST_S, flow(browser));
  } catch (error) {
    found[name] = { error: String(error?.stack ?? error) };
    for (const context of browser.contexts()) {
      for (const [n, page] of context.pages().entries()) await page.screenshot({ path: `${folder}/${name}-${n}.png` });
    }
  }
  found[name].seconds = (performance.now() - began) / 1000;
  console.error(`${name}: ${found[name].seconds.toFixed(1)} s ${found[name].error ?? ""}`);
  await Promise.all(browser.contexts().map((context) => context.close()));
}
await browser.close();
console.log(JSON.stringify(found));
