import { host, settled } from "./dom.ts";
import assert from "node:assert/strict";
import test from "node:test";
import { render } from "preact";

import type { FuseMethod } from "../src/api/client.ts";
import type { ServerState } from "../src/api/state.ts";
import { state } from "../src/model/server.ts";
import { FuseDialog } from "../src/view/fuse_dialog.tsx";
import { answer } from "./answers.ts";

/** The dialog at a server with these methods. */
async function shown(methods: FuseMethod[] | undefined): Promise<HTMLElement> {
  window.HTMLDialogElement.prototype.showModal = () => {};
  const mixture = { name: "sky", layers: [["llama", "qwen"]], aggregators: ["writer"], methods };
  state.value = { mixture, cards: [] } as unknown as ServerState;
  const element = host();
  render(<FuseDialog answer={answer()} onClose={() => {}} />, element);
  await settled();
  return element;
}

function choices(element: HTMLElement): string[][] {
  return [...element.querySelectorAll("select")].map((select) => [...select.options].map(({ value }) => value));
}

/** Choose a method, submit the form, and give what is sent. */
async function sent(element: HTMLElement, method: string): Promise<unknown> {
  const bodies: string[] = [];
  const fetchBefore = globalThis.fetch;
  globalThis.fetch = (_, more) => {
    bodies.push(String(more!.body));
    return Promise.resolve(new Response("{}", { status: 503 }));
  };
  const select = element.querySelector("select")!;
  select.value = method;
  select.dispatchEvent(new window.Event("change", { bubbles: true }));
  await settled();
  element.querySelector("form")!.dispatchEvent(new window.Event("submit", { bubbles: true, cancelable: true }));
  await settled();
  globalThis.fetch = fetchBefore;
  return JSON.parse(bodies[0]!).moa.fuse;
}

test("an answer is made anew in every way that the server allows, the recipe's own way by default", async () => {
  const element = await shown(["select", "merge", "vote"]);
  assert.deepEqual(choices(element)[0], ["", "merge", "vote"]);
  assert.equal(element.querySelector("option")!.textContent, "the recipe's method, select");
  assert.match(element.textContent!, /The aggregator picks the best proposal\./);
  const proposals = [
    { model: "llama", text: "Blue." },
    { model: "qwen", text: "It is blue by day." },
  ];
  assert.deepEqual(await sent(element, "vote"), { proposals, method: "vote" });
  assert.deepEqual(await sent(await shown(["select", "merge"]), ""), { proposals });
});

test("a server that names no methods is not asked for one", async () => {
  assert.equal(choices(await shown(undefined)).length, 1);
});
