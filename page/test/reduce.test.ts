import assert from "node:assert/strict";
import test from "node:test";
import { failed, grownAlone, isOver, reduce, stopped, writerOf } from "../src/answer/reduce.ts";
import { later } from "../src/answer/shift.ts";
import { asked, documentedStream, event, grew, started, summary, thinks, words } from "./recorded.ts";

test("the recording in docs/api.md becomes the answer that it tells of", () => {
  const answer = reduce(asked(), documentedStream());
  assert.equal(answer.phase, "done");
  assert.equal(answer.text, "The sky is blue.");
  assert.equal(answer.answeredBy, "writer");
  assert.equal(answer.finishReason, "stop");
  assert.equal(answer.degraded, true);
  assert.deepEqual(
    answer.missing.map(({ model, cause }) => [model, cause]),
    [["broken", "engine_error"]],
  );
  assert.deepEqual(
    answer.proposals.map(({ place, model, phase, text, tokens }) => [place, model, phase, text, tokens]),
    [
      [0, "quick", "done", "It is blue.", 3],
      [1, "slow", "done", "Blue, mostly.", 2],
      [2, "broken", "dropped", "", null],
    ],
  );
  assert.deepEqual(answer.proposals[1], {
    ...{ layer: 1, place: 1, model: "slow", phase: "done", text: "Blue, mostly.", startedS: 0 },
    ...{ firstS: 0.08, seconds: 0.082, engineS: 0.082, tokens: 2, cause: null, detail: null },
  });
  assert.deepEqual(answer.stages, [
    { name: "layer 1", models: ["quick", "slow", "broken"], references: [], startedS: 0, firstS: null, seconds: 0.082 },
    {
      ...{ name: "aggregator", models: ["writer"], startedS: 0.082, firstS: 0.05, seconds: 0.056 },
      references: [
        { layer: 1, place: 1 },
        { layer: 1, place: 0 },
      ],
    },
  ]);
  assert.equal(answer.seed, 1);
  assert.deepEqual([answer.promptTokens, answer.completionTokens, answer.allTokens], [6, 4, 152]);
  assert.equal(answer.totalS, 0.138);
});

test("it does not matter how the stream is cut into pieces", () => {
  const chunks = documentedStream();
  const piecewise = chunks.reduce((answer, chunk) => reduce(answer, [chunk]), asked());
  assert.deepEqual(piecewise, reduce(asked(), chunks));
});

test("an answer that was given out never changes, and proposals without news stay the same objects", () => {
  const before = reduce(asked(), [started("layer 1", ["a", "b"]), grew(0, "a", "x"), grew(1, "b", "y")]);
  const copy = structuredClone(before);
  const after = reduce(before, [grew(1, "b", "z"), grew(1, "b", "!")]);
  assert.deepEqual(before, copy);
  assert.equal(after.proposals[0], before.proposals[0]);
  assert.equal(after.proposals[1]!.text, "yz!");
});

test("a proposal's first token has this browser's time until the server tells a better one", () => {
  const writing = reduce(asked(), [started("layer 1", ["a"], 2), grew(0, "a", "x")], 5);
  assert.equal(writing.proposals[0]!.firstS, 3);
  assert.equal(reduce(writing, [grew(0, "a", "y")], 9).proposals[0]!.firstS, 3);
  const done = {
    type: "proposal.done",
    layer: 1,
    place: 0,
    model: "a",
    text: "xy",
    seconds: 4,
    engine_s: 3,
    completion_tokens: 2,
  } as const;
  assert.equal(reduce(writing, [event({ ...done, first_s: 2.9 })]).proposals[0]!.firstS, 2.9);
  assert.equal(reduce(writing, [event({ ...done, first_s: null })]).proposals[0]!.firstS, 3);
});

test("a proposal thinks until its first text, also when it begins anew", () => {
  const thinking = reduce(asked(), [started("layer 1", ["a", "b"], 2), thinks(0, "a")], 5);
  assert.deepEqual(
    thinking.proposals.map(({ phase, firstS, textS }) => [phase, firstS, textS]),
    [
      ["thinks", 3, null],
      ["waits", null, undefined],
    ],
  );
  const again = reduce(thinking, [thinks(0, "a"), thinks(7, "nobody")], 9).proposals[0]!;
  assert.deepEqual([again.phase, again.firstS, again.textS], ["thinks", 3, null]);
  const writing = reduce(reduce(thinking, [grew(0, "a", "x")], 12), [grew(0, "a", "y")], 13);
  const { phase, text, firstS, textS } = writing.proposals[0]!;
  assert.deepEqual([phase, text, firstS, textS], ["writes", "xy", 3, 10]);
  assert.equal("textS" in reduce(thinking, [grew(1, "b", "x")], 12).proposals[1]!, false);
  assert.equal(stopped(thinking, 6).proposals[0]!.phase, "dropped");
});

test("a member that is asked again by name thinks, too, before it writes", () => {
  const waiting = reduce(asked(), [started("layer 1", ["a"])]).proposals[0]!;
  const direct = reduce(asked(), [started("direct", ["a"])]);
  const thought = reduce(direct, [{ choices: [{ delta: { reasoning_content: "hm" }, finish_reason: null }] }], 2);
  assert.deepEqual(grownAlone(waiting, direct, 1), {});
  assert.deepEqual(grownAlone(waiting, thought, 3), { phase: "thinks", textS: null, firstS: 2 });
  const thinking = { ...waiting, ...grownAlone(waiting, thought, 3) };
  const spoken = reduce(thought, [words("x")], 4);
  assert.deepEqual(grownAlone(thinking, spoken, 5), { phase: "writes", text: "x", firstS: 2, textS: 5 });
  assert.deepEqual(grownAlone({ ...thinking, textS: 5 }, spoken, 6), { phase: "writes", text: "x", firstS: 2 });
  assert.deepEqual(grownAlone(waiting, reduce(direct, [words("x")], 4), 5), { phase: "writes", text: "x", firstS: 4 });
});

test("a proposal that was written anew has its last text", () => {
  const done = {
    type: "proposal.done",
    layer: 1,
    place: 0,
    model: "a",
    text: "other",
    seconds: 4,
    first_s: 1,
    engine_s: 3,
    completion_tokens: 2,
  } as const;
  const answer = reduce(asked(), [
    started("layer 1", ["a"]),
    grew(0, "a", "one"),
    event({ type: "retried", layer: 1, model: "a", detail: "d" }),
    event(done),
  ]);
  assert.equal(answer.proposals[0]!.text, "other");
  assert.deepEqual(answer.retried, [{ layer: 1, model: "a", detail: "d" }]);
});

test("two layers have proposals at the same places", () => {
  const answer = reduce(asked(), [
    started("layer 1", ["a", "b"]),
    started("layer 2", ["a", "b"], 3),
    grew(1, "b", "new", 2),
  ]);
  assert.deepEqual(
    answer.proposals.map(({ layer, place, text }) => [layer, place, text]),
    [
      [1, 0, ""],
      [1, 1, ""],
      [2, 0, ""],
      [2, 1, "new"],
    ],
  );
  assert.equal(answer.phase, "proposes");
});

test("a dropped proposal keeps the text that it had, with the cause", () => {
  const dropped = {
    type: "proposal.dropped",
    layer: 1,
    place: 0,
    model: "a",
    cause: "late",
    detail: "too late",
    seconds: 9,
  } as const;
  const { phase, text, cause, detail, seconds } = reduce(asked(), [
    started("layer 1", ["a"]),
    grew(0, "a", "half"),
    event(dropped),
  ]).proposals[0]!;
  assert.deepEqual(
    { phase, text, cause, detail, seconds },
    { phase: "dropped", text: "half", cause: "late", detail: "too late", seconds: 9 },
  );
});

test("a failed aggregator is missing at once, and the summary has the last word", () => {
  const missing = { layer: 0, model: "writer", cause: "engine_error", detail: "d" };
  const writing = reduce(asked(), [
    started("aggregator", ["writer", "other"]),
    event({ type: "aggregator.failed", ...missing }),
  ]);
  assert.deepEqual(writing.missing, [missing]);
  assert.equal(writerOf(writing), "other");
  const done = reduce(writing, [
    words("text", "stop"),
    summary({ missing: [missing], fallback: "aggregator", answered_by: "other", degraded: true }),
  ]);
  assert.deepEqual([done.answeredBy, done.fallback, done.missing.length], ["other", "aggregator", 1]);
});

test("a member that is asked by name has a stage and no proposals", () => {
  const answer = reduce(
    asked({ model: "a" }),
    [started("direct", ["a"]), words("Hello."), summary({ answered_by: "a" })],
    1,
  );
  assert.deepEqual([answer.phase, answer.text, answer.proposals.length], ["done", "Hello.", 0]);
});

test("the reasoning of the model that answers is kept apart", () => {
  const answer = reduce(
    asked(),
    [started("direct", ["a"]), { choices: [{ delta: { reasoning_content: "Hm." }, finish_reason: null }] }],
    2,
  );
  assert.deepEqual([answer.reasoning, answer.text, answer.stages[0]!.firstS], ["Hm.", "", 2]);
});

test("an error ends the answer and keeps what came", () => {
  const error = { message: "all failed", code: "engine_error" };
  const answer = reduce(asked(), [started("layer 1", ["a"]), grew(0, "a", "half"), { error }], 4);
  assert.equal(answer.phase, "failed");
  assert.deepEqual(answer.error, { ...error, status: null });
  assert.deepEqual(
    [answer.proposals[0]!.phase, answer.proposals[0]!.text, answer.proposals[0]!.seconds],
    ["dropped", "half", 4],
  );
});

test("stopping drops what is not whole and changes nothing that is over", () => {
  const running = reduce(asked(), [started("layer 1", ["a"]), grew(0, "a", "half")], 1);
  const over = stopped(running, 3);
  assert.deepEqual([over.phase, over.proposals[0]!.cause, over.totalS], ["stopped", "stopped", 3]);
  assert.equal(failed(over, { message: "m", code: null, status: null }), over);
  assert.equal(isOver(over), true);
});

test("an answer whose work began before its stream has its stages later", () => {
  const chunks = [
    started("aggregator", ["w"], 0.5),
    words("Hello."),
    summary({ stages: [{ stage: "aggregator", seconds: 2, first_s: 1, at_s: 0.5, references: [] }] }),
  ];
  const answer = reduce(
    asked(),
    chunks.map((chunk) => later(chunk, 10)),
  );
  assert.deepEqual([answer.stages[0]!.startedS, answer.totalS], [10.5, 12.5]);
  assert.equal(later(chunks[1]!, 10), chunks[1]);
});

test("what the page does not know, it passes over", () => {
  const strange = { type: "weather.changed" } as never;
  assert.deepEqual(reduce(asked(), [event(strange), { choices: [] }]), asked());
  assert.deepEqual(reduce(asked(), [grew(7, "a", "nobody announced this proposal")]), asked());
});
