import assert from "node:assert/strict";
import test from "node:test";
import { messagesOf, shownVersion, turnsOf } from "../src/answer/turns.ts";
import { asked } from "./recorded.ts";

const first = asked({ id: "1", question: "one", text: "A" });
const again = asked({ id: "2", question: "one", text: "B", retryOf: "1" });
const fused = asked({ id: "3", question: "one", text: "C", fusedFrom: "2" });
const silent = asked({ id: "4", question: "two" });
const next = asked({ id: "5", question: "one", text: "D" });

test("answers to one question are versions of one turn, and the same words later are another turn", () => {
  const turns = turnsOf([first, again, fused, silent, next]);
  assert.deepEqual(
    turns.map(({ versions }) => versions.map(({ id }) => id)),
    [["1", "2", "3"], ["4"], ["5"]],
  );
});

test("the last version is shown until another one is chosen", () => {
  const [turn] = turnsOf([first, again, fused]);
  assert.equal(shownVersion(turn!, new Map()).id, "3");
  assert.equal(shownVersion(turn!, new Map([["1", "2"]])).id, "2");
});

test("a follow-up sends the answers that are shown, and no question without an answer", () => {
  const turns = turnsOf([first, again, silent, next]);
  assert.deepEqual(messagesOf(turns, "three", new Map([["1", "1"]])), [
    { role: "user", content: "one" },
    { role: "assistant", content: "A" },
    { role: "user", content: "one" },
    { role: "assistant", content: "D" },
    { role: "user", content: "three" },
  ]);
});

test("an answer whose source is gone is a turn of its own", () => {
  assert.equal(turnsOf([asked({ id: "9", retryOf: "gone" })]).length, 1);
});
