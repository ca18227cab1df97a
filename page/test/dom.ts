/** A document for tests of elements. Import this file first: DOMPurify looks for the window when it is loaded. */
import { JSDOM } from "jsdom";

const { window } = new JSDOM("<!doctype html><body></body>", { url: "http://localhost/" });
let asked: FrameRequestCallback[] = [];

Object.assign(globalThis, {
  window,
  document: window.document,
  Text: window.Text,
  HTMLElement: window.HTMLElement,
  NodeFilter: window.NodeFilter,
  requestAnimationFrame: (callback: FrameRequestCallback) => asked.push(callback),
  cancelAnimationFrame: (n: number) => asked.splice(n - 1, 1, () => {}),
});

/** Let frames go by until nobody asks for one. */
export function frames(): void {
  while (asked.length > 0) {
    const now = asked;
    asked = [];
    for (const callback of now) callback(performance.now());
  }
}

/** Frames, and all promises that wait meanwhile. */
export async function settled(): Promise<void> {
  for (let n = 0; n < 5; n++) {
    frames();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** An element on the page. */
export function host(): HTMLElement {
  return document.body.appendChild(document.createElement("div"));
}
