import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { calls, endOf, marks, ticks, type Call } from "../../src/waterfall/calls.ts";
import { answer, proposal } from "../answers.ts";

const LIMITS = { quorum: 2, grace_s: 12, layer_deadline_s: 60, deadline_s: 120 };

function spans(row: Call | undefined): string[] {
  return row!.spans.map(({ doing, from, to }) => `${doing} ${from} to ${to}`);
}

describe("a call", () => {
  it("waits, reads and writes", () => {
    assert.deepEqual(spans(calls(answer(), null)[0]), ["waits 0 to 2", "reads 2 to 3", "writes 3 to 10"]);
  });

  it("waits or reads as long as nobody knows how long its engine worked", () => {
    const writing = proposal({ phase: "writes", seconds: null, engineS: null });
    const row = calls(answer({ phase: "proposes", proposals: [writing], stages: [], totalS: null }), 7)[0];
    assert.deepEqual(spans(row), ["waits or reads 0 to 3", "writes 3 to 7"]);
    assert.equal(row!.endedS, null);
  });

  it("thinks before its text", () => {
    const thinking = proposal({ phase: "thinks", textS: null, seconds: null, engineS: null });
    const row = calls(answer({ phase: "proposes", proposals: [thinking], stages: [], totalS: null }), 7)[0]!;
    assert.deepEqual([spans(row), row.outcome], [["waits or reads 0 to 3", "thinks 3 to 7"], "thinks"]);
    const read = ["waits 0 to 2", "reads 2 to 3"];
    const done = calls(answer({ proposals: [proposal({ textS: 6 })] }), null)[0];
    assert.deepEqual(spans(done), [...read, "thinks 3 to 6", "writes 6 to 10"]);
    const dropped = proposal({ phase: "dropped", cause: "only_reasoning", textS: null });
    assert.deepEqual(spans(calls(answer({ proposals: [dropped] }), null)[0]), [...read, "thinks 3 to 10"]);
    const byOtherClock = calls(answer({ proposals: [proposal({ textS: 10.2 })] }), null)[0];
    assert.deepEqual(spans(byOtherClock), [...read, "thinks 3 to 10"]);
  });

  it("reads and writes if its first token is unknown", () => {
    const row = calls(answer({ proposals: [proposal({ firstS: null })] }), null)[0];
    assert.deepEqual(spans(row), ["waits 0 to 2", "reads and writes 2 to 10"]);
  });

  it("that was dropped says why", () => {
    const dropped = { phase: "dropped", cause: "late", detail: "too late", engineS: null } as const;
    const rows = calls(answer({ proposals: [proposal(dropped), proposal({ ...dropped, cause: "empty", detail: "no text" })] }), null);
    assert.deepEqual(rows.slice(0, 2).map(({ outcome, bad }) => [outcome, bad]), [["dropped: late", true], ["dropped: no text", true]]);
  });

  it("ends when the answer was stopped", () => {
    const open = proposal({ phase: "writes", seconds: null, engineS: null });
    const row = calls(answer({ phase: "stopped", proposals: [open], stages: [], totalS: 9 }), null)[0];
    assert.deepEqual([spans(row).at(-1), row!.outcome], ["writes 3 to 9", "stopped"]);
  });

  it("of the aggregator is a row of its own", () => {
    const row = calls(answer(), null).at(-1)!;
    assert.deepEqual([row.title, row.model, row.tokens, row.outcome], ["answer", "writer", 4, "done"]);
    assert.deepEqual(spans(row), ["waits or reads 20 to 21", "writes 21 to 25"]);
  });

  it("of a fallback has no first token, whose time counts from another moment", () => {
    const row = calls(answer({ fallback: "aggregator" }), null).at(-1)!;
    assert.deepEqual([spans(row), row.outcome], [["reads and writes 20 to 25"], "done by a fallback"]);
  });
});

describe("limits", () => {
  it("take hold at the quorum, the grace and the deadlines", () => {
    const slow = proposal({ place: 2, phase: "dropped", seconds: 32, engineS: null, cause: "late" });
    const found = marks(answer({ proposals: [...answer().proposals, slow] }), LIMITS, 35);
    assert.deepEqual(found.map(({ words, atS, ahead }) => [words, atS, ahead]), [
      ["quorum: 2 of 3 proposals", 20, false],
      ["end of the grace", 32, false],
      ["deadline of the layer", 60, true],
      ["deadline of the answer", 120, true],
    ]);
  });

  it("are not there before the quorum, and without a recipe", () => {
    const waiting = answer({ proposals: [proposal({ phase: "waits", seconds: null })] });
    assert.deepEqual(marks(waiting, LIMITS, 1).map(({ kind }) => kind), ["deadline", "deadline"]);
    assert.deepEqual(marks(answer(), null, 1), []);
  });
});

it("the axis ends with the last event, or now", () => {
  const rows = calls(answer(), null);
  assert.equal(endOf(answer(), rows, null), 25);
  assert.equal(endOf(answer({ phase: "aggregates", totalS: null }), rows, 40), 40);
});

it("the axis has a line at each of a few round numbers", () => {
  assert.deepEqual(ticks(65), [0, 20, 40, 60]);
  assert.deepEqual(ticks(0.4), [0, 0.1, 0.2, 0.3, 0.4]);
  assert.deepEqual(ticks(0), [0]);
  for (const length of [0.003, 1, 7, 99, 601, 86_400]) assert.ok(ticks(length).length <= 6);
});
