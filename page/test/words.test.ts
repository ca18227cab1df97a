import assert from "node:assert/strict";
import test from "node:test";
import { boundaries } from "../src/answer/boundaries.ts";
import {
  causeWords,
  learnTokens,
  membersOf,
  proposalWords,
  waitingFor,
  waitWords,
  writerWords,
} from "../src/answer/phase_words.ts";
import { reduce, stopped } from "../src/answer/reduce.ts";
import { clock, seconds } from "../src/answer/times.ts";
import type { MemberState, ServerState } from "../src/api/state.ts";
import { asked, documentedStream, event, grew, started, summary, thinks, words } from "./recorded.ts";

function member(name: string, more: Partial<MemberState>): MemberState {
  const calls = { turn: "open", in_flight: 0, waiting: 0, oldest_wait_s: 0 } as const;
  const steps = { last_step_s: null, failure: "", awake_bytes: 0, asleep_bytes: 0, orders: {}, step_seconds: {} };
  return { name, slot: "1", state: "resident", ...calls, ...steps, ...more };
}

test("a call that waits says what its members do", () => {
  const said = (...members: Partial<MemberState>[]) =>
    waitWords(waitingFor(members.map((m, n) => member(`a/${n}`, m))), null);
  assert.equal(said({}), "reads the prompt");
  assert.equal(said({ state: "asleep" }), "asleep");
  assert.equal(said({ state: "falling asleep" }), "asleep");
  assert.equal(said({ state: "waking" }), "waking");
  assert.equal(said({ state: "starting" }), "waking");
  assert.equal(said({ state: "stopped" }), "stopped, has to start");
  assert.equal(said({ state: "failed" }), "failed, starts again");
  assert.equal(said({ waiting: 3 }), "waits, 2 before it");
  assert.equal(said({ waiting: 1 }), "waits for its turn");
  assert.equal(said({ state: "asleep" }, {}), "reads the prompt");
  assert.equal(said(), "waits for its first word");
});

test("calls that come later never push a call back", () => {
  assert.equal(waitWords(waitingFor([member("a/0", { waiting: 9 })]), 2), "waits, 2 before it");
});

test("members are found by the whole name of their model", () => {
  const members = [member("a/0", {}), member("a/b/0", {}), member("ab/0", {})];
  const state = { cards: [{ members }] } as unknown as ServerState;
  assert.deepEqual(
    membersOf(state, "a").map(({ name }) => name),
    ["a/0"],
  );
  assert.deepEqual(
    membersOf(state, "a/b").map(({ name }) => name),
    ["a/b/0"],
  );
  assert.deepEqual(membersOf(null, "a"), []);
});

test("proposals say their phase with their rate", () => {
  const none = waitingFor([]);
  const said = (answer: ReturnType<typeof asked>, now: number) =>
    proposalWords(answer.proposals[0]!, answer, now, none, null).words;
  const writing = reduce(asked(), [started("layer 1", ["a"]), grew(0, "a", "x".repeat(400))], 1);
  assert.equal(said(writing, 1.5), "writes");
  assert.equal(said(writing, 5), "writes about 25 tokens/s");
  const done = {
    type: "proposal.done",
    layer: 1,
    place: 0,
    model: "a",
    text: "x",
    seconds: 41.2,
    first_s: 1.2,
    engine_s: 41,
    completion_tokens: 1240,
  } as const;
  assert.equal(said(reduce(writing, [event(done)]), 50), "done in 41 s, 31 tokens/s");
  const late = {
    type: "proposal.dropped",
    layer: 1,
    place: 0,
    model: "a",
    cause: "late",
    detail: "d",
    seconds: 60,
  } as const;
  assert.equal(said(reduce(writing, [event(late)]), 60), "late after 1 min 00 s");
  assert.equal(said(stopped(writing, 4), 4), "stopped after 4.0 s");
});

test("a proposal thinks with its clock, and what it thought is no part of its rate", () => {
  const waiting = waitingFor([member("a/0", {})]);
  const thinking = reduce(asked(), [started("layer 1", ["a"]), thinks(0, "a")], 1);
  const { words: said, runs, sign } = proposalWords(thinking.proposals[0]!, thinking, 30, waiting, null);
  assert.deepEqual([said, runs, sign], ["thinks", true, "thinks"]);
  const writing = reduce(thinking, [grew(0, "a", "x".repeat(400))], 31);
  assert.equal(proposalWords(writing.proposals[0]!, writing, 36, waiting, null).words, "writes about 20 tokens/s");
  assert.deepEqual(boundaries(thinking, writing), []);
});

test("a model's rate is about right once its tokens were counted", () => {
  learnTokens("long", "x".repeat(800), 100);
  const writing = reduce(asked(), [started("layer 1", ["long"]), grew(0, "long", "x".repeat(400))], 1);
  assert.equal(
    proposalWords(writing.proposals[0]!, writing, 6, waitingFor([]), null).words,
    "writes about 10 tokens/s",
  );
});

test("every cause has words, known or not", () => {
  assert.equal(causeWords("empty"), "dropped: wrote nothing");
  assert.equal(causeWords("some_new_cause"), "dropped: some new cause");
});

test("the writer says what it does", () => {
  const none = waitingFor([]);
  const proposing = reduce(asked(), [started("layer 1", ["a"])]);
  assert.equal(writerWords(proposing, 1, none, null).words, "waits for the proposals");
  const reading = reduce(proposing, [started("aggregator", ["w"], 2)]);
  assert.equal(writerWords(reading, 3, none, null).words, "waits for its first word");
  assert.equal(
    writerWords(reduce(reading, [words("x".repeat(40))], 3), 5, none, null).words,
    "writes about 5.0 tokens/s",
  );
  const thought = (text: string) => ({ choices: [{ delta: { reasoning_content: text }, finish_reason: null }] });
  const thinking = reduce(reading, [thought("x".repeat(40))], 3);
  assert.deepEqual([writerWords(thinking, 9, none, null).words, writerWords(thinking, 9, none, null).sign], ["thinks", "thinks"]);
  assert.equal(
    writerWords(reduce(thinking, [words("x".repeat(40))], 4), 5, none, null).words,
    "writes about 10 tokens/s",
  );
  assert.equal(
    writerWords(reduce(asked(), documentedStream()), 0, none, null).words,
    "done in 0.1 s, first word after 0.1 s",
  );
});

test("a screen reader hears boundaries, and no text", () => {
  let answer = asked();
  const heard = documentedStream().flatMap((chunk) => {
    const before = answer;
    answer = reduce(before, [chunk]);
    return boundaries(before, answer);
  });
  assert.deepEqual(heard, [
    "Layer 1: 3 models asked.",
    "Proposal 3 of 3 dropped: engine error.",
    "Proposal 1 of 3 done, 0.1 s.",
    "Proposal 2 of 3 done, 0.1 s.",
    "writer reads the proposals.",
    "Answer done, 0.1 s. It is degraded.",
  ]);
});

test("a screen reader hears once that an answer was stopped", () => {
  const running = reduce(asked(), [started("layer 1", ["a", "b"])]);
  assert.deepEqual(boundaries(running, stopped(running, 1)), ["Answer stopped."]);
  assert.deepEqual(boundaries(running, reduce(running, [summary({ stages: [] })])), ["Answer done, time unknown."]);
});

test("times are as people read them", () => {
  assert.deepEqual([0, 4.24, 9.96, 41.4, 59.6, 185, -1].map(seconds), [
    "0.0 s",
    "4.2 s",
    "10 s",
    "41 s",
    "1 min 00 s",
    "3 min 05 s",
    "0.0 s",
  ]);
  assert.deepEqual([0.9, 59.9, 61, 600].map(clock), ["0 s", "59 s", "1:01", "10:00"]);
});
