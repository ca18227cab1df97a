// Opens pages in a headless Chromium and prints, as JSON, what a reader would see and what went wrong.
//     node look.mjs FOLDER-FOR-SCREENSHOTS PAGE...
import chromium from "@sparticuz/chromium";
import { chromium as playwright } from "playwright-core";
import { basename } from "node:path";
import { pathToFileURL } from "node:url";

const VIEWS = [
  { view: "desktop-light", width: 1280, height: 900, colorScheme: "light" },
  { view: "desktop-dark", width: 1280, height: 900, colorScheme: "dark" },
  { view: "phone-light", width: 390, height: 844, colorScheme: "light" },
  { view: "phone-dark", width: 390, height: 844, colorScheme: "dark" },
];

function seen() {
  const luminance = (color) => {
    const [r, g, b] = color.match(/[\d.]+/g).map((part) => {
      const share = part / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const backdrop = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (!/, 0\)$/.test(color)) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const contrast = (element) => {
    const style = getComputedStyle(element);
    const front = luminance(element.closest("svg") ? style.fill : style.color);
    const back = luminance(backdrop(element));
    return (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
  };
  const plots = [...document.querySelectorAll("figure svg")];
  const cut = [], overlapping = [], sizes = [];
  for (const plot of plots) {
    const frame = plot.getBoundingClientRect();
    const texts = [...plot.querySelectorAll("text")].map((text) => [text, text.getBoundingClientRect()]);
    for (const [text, box] of texts) {
      sizes.push(parseFloat(getComputedStyle(text).fontSize) * frame.width / plot.viewBox.baseVal.width);
      const inside = box.left >= frame.left - 1 && box.right <= frame.right + 1
        && box.top >= frame.top - 1 && box.bottom <= frame.bottom + 1;
      if (!inside) cut.push(text.textContent);
    }
    texts.forEach(([one, a], n) => texts.slice(n + 1).forEach(([other, b]) => {
      const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      // Boxes of lines are higher than their letters.
      if (width > 1 && height > 4) overlapping.push([one.textContent, other.textContent]);
    }));
  }
  const written = document.querySelectorAll("h1, h2, h3, p, th, td, dt, dd, summary, pre, figcaption, svg text");
  return {
    title: document.title,
    width: document.documentElement.scrollWidth,
    plots: plots.length,
    cut,
    overlapping,
    least_plot_text: Math.min(...sizes, 99),
    least_contrast: Math.min(...[...written].map(contrast)),
  };
}

const [folder, ...pages] = process.argv.slice(2);
const browser = await playwright.launch({
  executablePath: await chromium.executablePath(),
  // Drawn in software, in the browser's own process: with --disable-gpu instead, 4 of 14 looks on a busy
  // machine ended with "Unable to capture screenshot".
  args: ["--no-sandbox", "--in-process-gpu", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
});
const found = [];
for (const page of pages) {
  for (const { view, width, height, colorScheme } of VIEWS) {
    const tab = await browser.newPage({ viewport: { width, height }, colorScheme });
    const said = [], requests = [];
    tab.on("console", (message) => said.push(message.text()));
    tab.on("pageerror", (error) => said.push(String(error)));
    tab.on("dialog", (dialog) => said.push(`dialog: ${dialog.message()}`));
    tab.on("requestfailed", (request) => said.push(`failed: ${request.url()}`));
    tab.on("request", (request) => requests.push(request.url()));
    await tab.goto(pathToFileURL(page).href);
    const sentence = await tab.locator(".sentence").first().boundingBox();
    await tab.screenshot({ path: `${folder}/${basename(page, ".html")}-${view}.png` });
    await tab.evaluate(() => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
    const answer_ends_at = sentence.y + sentence.height;
    found.push({ page, view, screen: [width, height], said, requests, answer_ends_at, ...await tab.evaluate(seen) });
    await tab.screenshot({ path: `${folder}/${basename(page, ".html")}-${view}-whole.png`, fullPage: true });
    await tab.close();
  }
}
await browser.close();
console.log(JSON.stringify(found));
