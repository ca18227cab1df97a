import { host, settled } from "../dom.ts";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { render } from "preact";

import type { Answer, Chat, Vote } from "../../src/answer/types.ts";
import { Compare } from "../../src/compare/compare.tsx";
import { answer, chat } from "../answers.ts";

/** The comparison of a chat's only answer, with the votes that it gives. */
async function shown(id: string, over: Partial<Answer> = {}) {
  const element = host();
  let now: Chat = chat({ answers: [answer({ id, ...over })] });
  const draw = (): void => render(<Compare answer={now.answers[0]!} chat={now} onVote={vote} />, element);
  const vote = (given: Vote): void => {
    now = { ...now, votes: [...now.votes, given] };
    draw();
  };
  draw();
  await settled();
  const button = (name: string): HTMLButtonElement | undefined => [...element.querySelectorAll("button")].find((each) => each.textContent === name);
  const press = async (name: string): Promise<void> => {
    button(name)!.click();
    await settled();
  };
  const choose = async (n: number): Promise<void> => {
    element.querySelectorAll<HTMLInputElement>("input[type=radio]")[n]!.click();
    await settled();
  };
  return { element, button, press, choose, votes: () => now.votes };
}

describe("a blind comparison", () => {
  it("tells no name, length or time before the vote, and all of them after it", async () => {
    const { element, press, votes } = await shown("one");
    assert.doesNotMatch(element.textContent!, /llama|qwen|writer|\d s\b|characters|tokens/);
    await press("The first is better");
    const [vote] = votes();
    assert.equal(vote!.preferred, "first");
    assert.match(element.textContent!, new RegExp(`${vote!.member.model}.*characters`));
    const [first] = [...element.querySelectorAll("h3")].map((heading) => heading.textContent!);
    assert.equal(first!.startsWith("The mixture's answer"), vote!.first === "mixture");
  });

  it("takes one vote for each pair", async () => {
    const { button, press, votes, element } = await shown("two");
    await press("Both are equally good");
    assert.equal(button("The first is better"), undefined);
    await press("Next pair");
    await press("The second is better");
    assert.equal(button("Next pair"), undefined);
    assert.deepEqual(new Set(votes().map(({ member }) => member.place)), new Set([0, 1]));
    assert.match(element.querySelector("table")!.textContent!, /llama1.*qwen1/);
  });

  it("takes no vote on a pair whose names were shown", async () => {
    const { button, choose, press, votes } = await shown("three");
    await choose(1);
    await choose(0);
    await press("The first is better");
    assert.equal(votes()[0]!.member.place, 1);
    assert.equal(button("Next pair"), undefined);
  });

  it("waits for the answer", async () => {
    const { element } = await shown("four", { phase: "aggregates" });
    assert.equal(element.textContent, "The comparison begins when the answer is complete.");
  });
});

it("sentences that only one text has are marked, and unmarked again", async () => {
  const { element } = await shown("five", { text: "It is blue by day. Only the *mixture* says this." });
  const box = element.querySelector<HTMLInputElement>("input[type=checkbox]")!;
  element.querySelectorAll<HTMLInputElement>("input[type=radio]")[1]!.click();
  await settled();
  const select = element.querySelector("select")!;
  select.value = "1";
  select.dispatchEvent(new window.Event("change", { bubbles: true }));
  box.click();
  await settled();
  assert.deepEqual([...element.querySelectorAll("mark")].map((mark) => mark.textContent), ["Only the ", "mixture", " says this."]);
  box.click();
  await settled();
  assert.equal(element.querySelector("mark"), null);
});
