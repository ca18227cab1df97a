import assert from "node:assert/strict";
import { describe, it } from "node:test";

import type { Vote } from "../../src/answer/types.ts";
import { comparable, drawn, namesAModel } from "../../src/compare/blind.ts";
import { onlyInOne, sentencesOf } from "../../src/compare/sentences.ts";
import { scores, wilson } from "../../src/compare/statistics.ts";
import { answer, chat, proposal } from "../answers.ts";

function vote(over: Partial<Vote> = {}): Vote {
  const member = { layer: 1, place: 0, model: "llama" };
  return { answerId: "a1", member, first: "mixture", preferred: "first", at: 0, namesAModel: false, ...over };
}

describe("Wilson's interval", () => {
  // scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
  const cases: [number, number, number, number][] = [
    [0, 1, 0, 0.793451],
    [1, 1, 0.206549, 1],
    [7, 10, 0.396778, 0.892209],
    [50, 100, 0.403832, 0.596168],
  ];
  for (const [successes, trials, low, high] of cases) {
    it(`of ${successes} in ${trials}`, () => {
      const rate = wilson(successes, trials);
      assert.ok(Math.abs(rate.low - low) < 1e-4 && Math.abs(rate.high - high) < 1e-4, JSON.stringify(rate));
    });
  }
});

describe("votes", () => {
  const votes = [
    vote(),
    vote({ first: "member" }),
    vote({ preferred: "tie" }),
    vote({ first: "member", preferred: "second", namesAModel: true }),
    vote({ answerId: "gone" }),
    vote({ member: { layer: 1, place: 1, model: "qwen" } }),
  ];

  it("are counted for each member, from the mixture's side", () => {
    const [llama, qwen] = scores(chat({ votes }));
    assert.deepEqual([llama!.model, llama!.votes, llama!.wins, llama!.losses, llama!.ties, llama!.named], ["llama", 4, 2, 1, 1, 1]);
    assert.equal(llama!.rate.share, 2.5 / 4);
    assert.equal(llama!.meanLengthDifference, "The sky is blue.".length - "Blue.".length);
    assert.deepEqual([llama!.longerWins, llama!.longerVotes], [2, 3]);
    assert.deepEqual([qwen!.model, qwen!.votes], ["qwen", 1]);
  });

  it("whose texts name a model can be left out", () => assert.equal(scores(chat({ votes }), false)[0]!.votes, 3));
});

describe("a blind comparison", () => {
  it("is of complete proposals that differ from the answer", () => {
    const proposals = [proposal(), proposal({ place: 1, phase: "dropped" }), proposal({ place: 2, text: "The sky is blue. " })];
    assert.deepEqual(comparable(answer({ proposals })).map(({ place }) => place), [0]);
  });

  it("draws each order about as often", () => {
    const firsts = Array.from({ length: 2_000 }, () => drawn(["mixture", "member"]));
    const share = firsts.filter((first) => first === "mixture").length / firsts.length;
    assert.ok(share > 0.4 && share < 0.6);
  });

  const texts: [string, boolean][] = [
    ["I am Qwen, made by Alibaba.", true],
    ["As Qwen2.5 I think so.", true],
    ["My name is sky-7b.", true],
    ["The writer of a small text is quick.", false],
    ["Requests are qwenched.", false],
    ["A llama is an animal.", false],
  ];
  for (const [text, named] of texts) {
    it(`marks ${JSON.stringify(text)}: ${named}`, () => {
      assert.equal(namesAModel(text, ["sky-7b-instruct", "writer", "quick"], "What is a llama?"), named);
    });
  }
});

describe("sentences", () => {
  it("are found with their places", () => {
    const text = "  One is here.  Two is there!\nThree";
    assert.deepEqual(sentencesOf(text).map(({ start, end }) => text.slice(start, end)), ["One is here.", "Two is there!", "Three"]);
  });

  it("count as shared if the other text has one with mostly the same words", () => {
    const one = ["The sky is blue by day.", "Only here is this.", "..."];
    const other = ["By day, the sky is really blue.", "Something else was said."];
    assert.deepEqual(onlyInOne(one, other), [[false, true, false], [false, true]]);
  });
});
