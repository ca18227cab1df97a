import assert from "node:assert/strict";
import test from "node:test";
import { boundaries } from "../src/answer/boundaries.ts";
import type { Decided } from "../src/answer/chunks.ts";
import { isChosen, methodWords } from "../src/answer/method_words.ts";
import { causeWords, proposalWords, waitingFor, writerWords } from "../src/answer/phase_words.ts";
import { degradedReasons, fallbackWords } from "../src/answer/reasons.ts";
import { chosenOf, reduce, writerOf } from "../src/answer/reduce.ts";
import type { Answer } from "../src/answer/types.ts";
import { chatAsMarkdown, chatsAsJson, importChats } from "../src/store/export.ts";
import { rows } from "../src/view/why.tsx";
import { calls } from "../src/waterfall/calls.ts";
import { answer, chat, proposal } from "./answers.ts";
import { asked, documentedStream, event, grew, started, summary, words } from "./recorded.ts";

const SECOND = { layer: 1, place: 1 };
const WHY = "2 of 2 proposals, of 2 models, have the same answer";

/** Two of three proposals agree, and the third is not needed. */
const AGREED = [
  started("layer 1", ["a", "b", "c"]),
  ...[0, 1].map((place) => {
    const times = { seconds: 1, first_s: 0.5, engine_s: 1, completion_tokens: 9 };
    return event({ type: "proposal.done", layer: 1, place, model: "ab"[place]!, text: "It is 42.", ...times });
  }),
  grew(2, "c", "Let me think"),
  event({
    ...{ type: "proposal.dropped", layer: 1, place: 2, model: "c", seconds: 1 },
    ...{ cause: "not_needed", detail: "the answer was there before" },
  }),
  event({ type: "decided", method: "agreement", why: WHY, chosen: SECOND }),
  event({ type: "stage.started", stage: "aggregator", models: ["writer"], references: [SECOND], at_s: 1 }),
];
const END = [
  words("It is 42.", "stop"),
  summary({
    ...{ answered_by: "b", method: "agreement", why: WHY, chosen: SECOND },
    stages: [
      { stage: "layer 1", seconds: 1, first_s: null, at_s: 0, references: [] },
      { stage: "aggregator", seconds: 0.01, first_s: null, at_s: 1, references: [SECOND] },
    ],
  }),
];
const agreed = reduce(asked(), [...AGREED, ...END]);

test("a decision is known before the text, and the summary repeats it", () => {
  for (const each of [reduce(asked(), AGREED), agreed]) {
    assert.deepEqual([each.method, each.why, each.chosen], ["agreement", WHY, SECOND]);
    assert.equal(chosenOf(each)?.model, "b");
    assert.equal(writerOf(each), "b");
  }
  assert.deepEqual(
    agreed.proposals.map((each) => isChosen(each, agreed)),
    [false, true, false],
  );
});

test("a plain merge has a method and nothing to say of it", () => {
  const merged = reduce(asked(), documentedStream());
  assert.deepEqual([merged.method, "why" in merged, "chosen" in merged], ["merge", false, false]);
  assert.equal(methodWords(merged), null);
  assert.equal(methodWords(asked()), null);
});

test("the summary has the last word on a decision that came to nothing", () => {
  const decided: Decided = { type: "decided", method: "select", why: "w", chosen: SECOND };
  const done = reduce(asked(), [started("layer 1", ["a", "b"]), event(decided), summary({ method: "merge" })]);
  assert.deepEqual([done.method, done.why, done.chosen], ["merge", undefined, undefined]);
});

test("every method is said in words", () => {
  const said = (more: Partial<Answer>) => methodWords(answer({ chosen: SECOND, why: "of a reason", ...more }));
  const which = "proposal 2 of 2, by qwen, because of a reason.";
  assert.equal(said({ method: "select" }), `Picked: ${which}`);
  assert.equal(said({ method: "vote" }), `A vote chose: ${which}`);
  assert.equal(said({ method: "agreement" }), `Agreed on: ${which}`);
  assert.equal(said({ method: "first" }), `The first model was sure, and no other was asked: ${which}`);
  assert.equal(said({ method: "direct" }), null);
  assert.equal(said({ method: "new_one" as never }), `Taken: ${which}`);
  const { chosen: _, ...merged } = answer({ method: "merge", why: "not enough proposals agreed" });
  assert.equal(methodWords(merged), "Merged, because not enough proposals agreed.");
});

test("a proposal is counted in its layer", () => {
  const two = answer({
    ...{ method: "vote", why: "w", chosen: { layer: 2, place: 0 } },
    proposals: [proposal(), proposal({ place: 1 }), proposal({ layer: 2, model: "qwen" })],
  });
  assert.equal(methodWords(two), "A vote chose: proposal 1 of 1 of layer 2, by qwen, because w.");
});

test("a proposal that stands in says why, once", () => {
  const why = "no model said which proposal is the best";
  const stands = answer({ fallback: "reference", answeredBy: "qwen", method: "stand_in", why, chosen: SECOND });
  const words = "No model said which proposal is the best: this is proposal 2 of 2, by qwen, as it stands.";
  assert.equal(fallbackWords(stands), words);
  assert.equal(writerWords(stands, 0, waitingFor([]), null).words, "stands in for the aggregator");
});

test("a proposal that was not needed is no failure", () => {
  const none = agreed.proposals[2]!;
  assert.deepEqual(proposalWords(none, agreed, 0, waitingFor([]), null), {
    ...{ words: "not needed", sign: "spared", tone: "quiet", runs: false },
  });
  assert.equal(causeWords("not_needed"), "not needed");
  assert.deepEqual([agreed.degraded, degradedReasons(agreed)], [false, []]);
  assert.equal(none.text, "Let me think");
});

test("the model of the chosen proposal has no rate of the last stage", () => {
  assert.equal(writerWords(agreed, 0, waitingFor([]), null).words, "its proposal is the answer");
  assert.equal(writerWords(reduce(asked(), AGREED), 0, waitingFor([]), null).words, "its proposal is the answer");
});

test("a screen reader hears what was not needed and which proposal is the answer", () => {
  let now = asked();
  const heard = [...AGREED, ...END].flatMap((chunk) => {
    const before = now;
    now = reduce(before, [chunk]);
    return boundaries(before, now);
  });
  assert.deepEqual(heard, [
    "Layer 1: 3 models asked.",
    "Proposal 1 of 3 done, 1.0 s.",
    "Proposal 2 of 3 done, 1.0 s.",
    "Proposal 3 of 3 is not needed.",
    "The answer is proposal 2 of 3, by b.",
    "Answer done, 1.0 s.",
  ]);
});

test("the seed says whether it decides the order of the references", () => {
  const seeded = new Map(rows(answer({ order: "seeded" }))).get("Seed");
  assert.equal(seeded, "7: it drew the order of the references. The same seed gives the same order.");
  const arrival = new Map(rows(answer({ order: "arrival" }))).get("Seed");
  assert.equal(arrival, "7: the proposals were read as they came, so the same seed may give another order.");
});

test("the panel of reasons has the method, and no order that nobody read", () => {
  const told = new Map(rows(agreed));
  assert.equal(told.get("Method"), "exit: enough proposals agreed");
  assert.equal(told.get("Reason"), `${WHY}.`);
  assert.equal(told.has("Aggregator read"), false);
  const picked = new Map(rows(answer({ method: "select", why: "w", chosen: SECOND })));
  assert.equal(picked.has("Aggregator read"), true);
});

test("the times tell a decision from an answer that was written", () => {
  const [, , third, last] = calls(agreed, null);
  assert.deepEqual([third!.outcome, third!.bad], ["not needed", false]);
  assert.deepEqual(
    [last!.title, last!.model, last!.outcome, last!.tokens, last!.spans],
    ["decision", "b", "an agreement on proposal 2 of 3", null, []],
  );
  const pick = calls(answer({ method: "select", why: "w", chosen: SECOND, answeredBy: "qwen" }), null).at(-1)!;
  assert.deepEqual([pick.title, pick.model, pick.outcome], ["pick", "writer", "a pick of proposal 2 of 2"]);
  assert.deepEqual(pick.spans, [{ doing: "waits or reads", from: 20, to: 25 }]);
});

test("exports keep how an answer came about", () => {
  const one = chat({ answers: [agreed] });
  assert.deepEqual(importChats(chatsAsJson([one])), [one]);
  const text = chatAsMarkdown(one);
  assert.match(text, /not needed: the answer was there before/);
  assert.match(text, /method exit: enough proposals agreed, .*, the answer is proposal 2 of 3/);
  const wrong = chatsAsJson([chat({ answers: [answer({ method: "guess" as never })] })]);
  assert.throws(() => importChats(wrong), /method is "guess"\. Allowed is "merge", "select"/);
});
