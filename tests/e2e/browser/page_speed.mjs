// Measures the page on a slow machine: tasks that hold it up while six columns grow, and its memory over many
// turns. Prints JSON.
//     node page_speed.mjs URLS SECONDS TURNS
// URLS is what page_server.py prints.
import { answered, ask, fresh, launch, NO_GL, open } from "./page_browser.mjs";

const SLOWER = 4;
/** Seconds of which each task is recorded. */
const TRACED_S = 20;
const [urlsAsJson, seconds, turns] = process.argv.slice(2);
const urls = JSON.parse(urlsAsJson);

/** How long tasks of the page took, in ms, while six columns grow at 50 tokens a second each. */
async function growth(browser) {
  const context = await fresh(browser);
  await context.addInitScript(() => {
    window.tasks = [];
    new PerformanceObserver((list) => {
      for (const { startTime, duration } of list.getEntries()) window.tasks.push({ at: startTime, ms: duration });
    }).observe({ type: "longtask", buffered: true });
  });
  const page = await open(context, urls.six);
  const devtools = await context.newCDPSession(page);
  await devtools.send("Emulation.setCPUThrottlingRate", { rate: SLOWER });
  const asked = await page.evaluate(() => performance.now());
  await ask(page, "Write for a minute.");
  await page.waitForTimeout(Number(seconds) * 1000);
  const lengths = () => page.locator(".column-text").evaluateAll((all) => all.map((text) => text.textContent.length));
  const written = await lengths();
  const tasks = await page.evaluate(() => window.tasks);
  await page.keyboard.press("Escape");
  await page.close();
  return { tasks: tasks.filter(({ at }) => at >= asked).map(({ at, ms }) => [Math.round(at - asked), ms]), written };
}

/**
 * The CPU time of the longest tasks of the page's main thread, in ms, while six columns grow, without a slower
 * CPU. Other programs of a busy machine make a task longer by the clock, but hardly in its CPU time.
 */
async function work(browser) {
  const page = await open(await fresh(browser), urls.six);
  await ask(page, "Write for a minute.");
  await page.locator(".column-text").first().waitFor();
  await page.waitForTimeout(2000);
  await browser.startTracing(page, { categories: ["disabled-by-default-devtools.timeline", "toplevel", "__metadata"] });
  await page.waitForTimeout(TRACED_S * 1000);
  const { traceEvents } = JSON.parse((await browser.stopTracing()).toString());
  await page.keyboard.press("Escape");
  await page.close();
  const tasks = traceEvents.filter(({ name, tdur }) => name === "RunTask" && tdur);
  // The renderer that did most is the page's.
  const byThread = new Map();
  for (const { pid, tid, tdur } of tasks) byThread.set(`${pid}/${tid}`, [...(byThread.get(`${pid}/${tid}`) ?? []), tdur / 1000]);
  const names = traceEvents.filter(({ name, args }) => name === "thread_name" && args.name === "CrRendererMain");
  const mains = names.map(({ pid, tid }) => byThread.get(`${pid}/${tid}`) ?? []);
  const main = mains.reduce((best, each) => (sum(each) > sum(best) ? each : best), []);
  const longest = main.sort((a, b) => b - a).slice(0, 10).map((ms) => Math.round(ms * 10) / 10);
  return { longest, share: sum(main) / (TRACED_S * 1000), tasks: main.length };
}

function sum(numbers) {
  return numbers.reduce((a, b) => a + b, 0);
}

/** Bytes of the page's heap, and elements of the document, after some turns each. */
async function memory(browser) {
  const context = await fresh(browser);
  const page = await open(context, urls.turns);
  const devtools = await context.newCDPSession(page);
  const found = [];
  for (let turn = 1; turn <= Number(turns); turn += 1) {
    await ask(page, `Question ${turn}`);
    await page.locator("h2.question", { hasText: new RegExp(`^Question ${turn}$`) }).waitFor();
    await answered(page);
    if (turn % (Number(turns) / 5) === 0) {
      await devtools.send("HeapProfiler.collectGarbage");
      const { usedSize } = await devtools.send("Runtime.getHeapUsage");
      const { nodes } = await devtools.send("Memory.getDOMCounters");
      found.push({ turn, bytes: usedSize, nodes });
    }
  }
  await page.close();
  return found;
}

const browser = await launch({ drawing: NO_GL });
const found = { work: await work(browser), growth: await growth(browser), memory: await memory(browser) };
await browser.close();
console.log(JSON.stringify(found));
