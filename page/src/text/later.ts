/**
 * What can wait: colours in code and the drawing of formulas. Both need libraries that the page loads only
 * when the first finished block has code or a formula, and both work while the browser has nothing else to do.
 */
import { schedule, type Worker } from "./frame_work.ts";
import { formulaElements, textElements } from "./sanitise.ts";

/** Longer code stays in one colour: the patterns of some languages take very long. */
const LONGEST_COLOURED = 20_000;

const jobs: (() => void)[] = [];
const worker: Worker = {
  work(until) {
    while (jobs.length > 0 && performance.now() < until) jobs.shift()!();
    return jobs.length > 0;
  },
};

/** Colour the code and draw the formulas of a finished block. */
export function finishLater(block: ParentNode): void {
  const codes = [...block.querySelectorAll<HTMLElement>("code[data-language]")];
  const formulas = [...block.querySelectorAll<HTMLElement>(".math")];
  if (codes.length > 0) void colour(codes);
  if (formulas.length > 0) void draw(formulas);
}

async function colour(codes: HTMLElement[]): Promise<void> {
  const { coloured } = await import("./colours.ts");
  add(codes, (code) => {
    const text = code.textContent ?? "";
    const html = text.length <= LONGEST_COLOURED ? coloured(text, code.dataset["language"] ?? "") : null;
    if (html !== null) code.replaceChildren(textElements(html));
  });
}

async function draw(formulas: HTMLElement[]): Promise<void> {
  const { mathml } = await import("./formulas.ts");
  add(formulas, (formula) => {
    const tex = formula.textContent ?? "";
    const drawn = mathml(tex, formula.classList.contains("math-display"));
    formula.classList.add(drawn === null ? "math-failed" : "math-drawn");
    if (drawn !== null) {
      formula.replaceChildren(formulaElements(drawn));
      formula.title = tex;
    }
  });
}

function add(elements: HTMLElement[], job: (element: HTMLElement) => void): void {
  for (const element of elements) {
    jobs.push(() => {
      if (element.isConnected) job(element);
    });
  }
  schedule(worker);
}
