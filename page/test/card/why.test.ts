import assert from "node:assert/strict";
import { describe, it } from "node:test";

import type { CardState, MemberState, ServerState } from "../../src/api/state.ts";
import { bytesInWords, cardTitle, titleOf } from "../../src/card/members.ts";
import { memoryParts } from "../../src/card/memory.ts";
import { why } from "../../src/card/why.ts";

function member(name: string, over: Partial<MemberState> = {}): MemberState {
  return {
    name: `${name}/0`,
    slot: "one",
    state: "asleep",
    turn: "closed",
    in_flight: 0,
    waiting: 0,
    oldest_wait_s: 0,
    last_step_s: null,
    failure: "",
    awake_bytes: 40,
    asleep_bytes: 2,
    orders: {},
    step_seconds: {},
    ...over,
  };
}

function card(members: MemberState[], over: Partial<CardState> = {}): CardState {
  return { node: "n", gpus: [0], name: "A100", total_bytes: 100, members, ...over };
}

function state(members: MemberState[], models = members.map(titleOf)): ServerState {
  const mixture = { name: "sky", layers: [models], aggregators: [], methods: [], quorum: 1, grace_s: null, layer_deadline_s: 60, deadline_s: 90 };
  return { mixture, models: [], cards: members.length ? [card(members)] : [], at: 0 };
}

const QWEN = { waiting: 3, oldest_wait_s: 12 };
const AWAKE = { state: "resident", turn: "open" } as const;

describe("why a model waits", () => {
  const cases: [string, MemberState[], string[]][] = [
    [
      "another has the turn",
      [member("qwen", QWEN), member("llama", { ...AWAKE, in_flight: 2 })],
      ["qwen waits for its turn: 3 calls, the oldest for 12 s; llama is awake and has 2 calls."],
    ],
    [
      "another ends its turn",
      [member("qwen", QWEN), member("llama", { state: "resident", turn: "closing", in_flight: 1 })],
      ["qwen waits for its turn: 3 calls, the oldest for 12 s; llama ends its turn with its last 1 call."],
    ],
    [
      "another leaves the card",
      [member("qwen", QWEN), member("llama", { state: "falling asleep" })],
      ["qwen waits for its turn: 3 calls, the oldest for 12 s; llama is falling asleep."],
    ],
    [
      "an engine in another slot moves",
      [member("qwen", QWEN), member("llama", { state: "starting", slot: "two" })],
      ["qwen waits for its turn: 3 calls, the oldest for 12 s; llama is starting from disk, and a card moves one engine at a time."],
    ],
    ["it is waking", [member("qwen", { ...QWEN, state: "waking" })], ["qwen is waking: 3 calls, the oldest for 12 s."]],
    [
      "it is full",
      [member("qwen", { ...QWEN, ...AWAKE, in_flight: 8 })],
      ["qwen is awake and full with 8 calls. Others wait for room: 3 calls, the oldest for 12 s."],
    ],
    [
      "its own turn ends",
      [member("qwen", { waiting: 1, oldest_wait_s: 5, state: "resident", turn: "closing" })],
      ["qwen ends its turn, and its other calls wait for the next turn: 1 call, for 5 s."],
    ],
    [
      "it has failed",
      [member("qwen", { ...QWEN, state: "failed", failure: "CUDA out of memory" })],
      ["Nobody waits, and no model has a call.", "qwen has failed (CUDA out of memory). It is started again after a while. 3 calls, the oldest for 12 s, wait for it."],
    ],
    ["nobody waits", [member("llama", { ...AWAKE, in_flight: 2 })], ["Nobody waits. Llama has 2 calls."]],
    ["there is no call", [member("llama", AWAKE)], ["Nobody waits, and no model has a call."]],
  ];
  for (const [name, members, sentences] of cases) {
    it(`because ${name}`, () => assert.deepEqual(why(state(members)).map(({ words }) => words), sentences));
  }

  it("is not known of models that run elsewhere, which is said", () => {
    assert.deepEqual(why(state([], ["far", "away"])).map(({ words }) => words), [
      "far and away run on no card of this server, so there is no memory and no turn to show.",
    ]);
  });

  it("names the longest queue of a slot first", () => {
    const words = why(state([member("a", { waiting: 1 }), member("b", { waiting: 4 })])).map((each) => each.words[0]);
    assert.deepEqual(words, ["b", "a"]);
  });
});

it("memory is what members hold in their states, and the rest is free", () => {
  const members = [member("a", AWAKE), member("b"), member("c", { state: "stopped" }), member("d", { state: "waking", awake_bytes: 10 })];
  assert.deepEqual(memoryParts(card(members)).map(({ use, number, bytes }) => [use, number, bytes]), [
    ["awake", 1, 40],
    ["asleep", 2, 2],
    ["moving", 4, 10],
    ["free", 0, 48],
  ]);
  assert.deepEqual(memoryParts(card([member("a", AWAKE)], { total_bytes: 0 })).map(({ use }) => use), ["awake"]);
});

it("members and cards have names for people", () => {
  assert.deepEqual(["qwen/0", "qwen/1", "org/qwen/0", "plain"].map((name) => titleOf(member("", { name }))), ["qwen", "qwen #2", "org/qwen", "plain"]);
  assert.equal(cardTitle(card([])), "A100 (GPU 0)");
  assert.equal(cardTitle(card([], { gpus: [0, 1, 2] })), "A100 (GPUs 0, 1 and 2)");
  assert.equal(cardTitle(card([], { gpus: null, name: "AMD EPYC" })), "AMD EPYC (CPU)");
  assert.deepEqual([bytesInWords(80 * 2 ** 30), bytesInWords(12 * 2 ** 20)], ["80.0 GiB", "12 MiB"]);
});
