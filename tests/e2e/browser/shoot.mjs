// Takes the pictures of the page that the documents show.
//     node shoot.mjs URLS FOLDER
// URLS is what page_server.py prints.
import { answered, ask, fresh, launch, open, PHONE, tool, until } from "./page_browser.mjs";

const SCREEN = { width: 1280, height: 800 };
const [urlsAsJson, folder] = process.argv.slice(2);
const { sky } = JSON.parse(urlsAsJson);
const browser = await launch();

async function asked(viewport, scheme) {
  const page = await open(await fresh(browser, viewport, scheme), sky);
  await ask(page, "Why is the sky blue?");
  return page;
}

/** Wait until the first proposal is done and the second is half way. */
async function growing(page) {
  await until(async () => /^done/.test(await page.locator(".phase-words").first().innerText()), 20_000);
}

const light = await asked({ ...SCREEN, width: 1500 }, "light");
await light.getByRole("button", { name: /^Card/ }).click();
await light.locator(".card-panel h2").waitFor();
await growing(light);
await light.screenshot({ path: `${folder}/page-growing.png` });

const dark = await asked({ ...SCREEN, height: 1000 }, "dark");
await answered(dark);
await dark.getByRole("button", { name: /^Proposals/ }).click();
await tool(dark, "Times").click();
await dark.locator("div.times table").waitFor({ state: "attached" });
await dark.locator("h2.question").scrollIntoViewIfNeeded();
await dark.mouse.move(0, 0);
await dark.screenshot({ path: `${folder}/page-answer.png` });

const phone = await asked(PHONE, "light");
await answered(phone);
await phone.locator(".conversation").evaluate((scroller) => scroller.scrollTo(0, 0));
await phone.mouse.move(0, 0);
await phone.screenshot({ path: `${folder}/page-phone.png` });
await browser.close();
