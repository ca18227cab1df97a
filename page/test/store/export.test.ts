import assert from "node:assert/strict";
import { describe, it } from "node:test";

import type { Vote } from "../../src/answer/types.ts";
import { openStore } from "../../src/store/chats.ts";
import { chatAsJson, chatAsMarkdown, chatsAsJson, importChats, votesAsRows } from "../../src/store/export.ts";
import { answer, chat, proposal } from "../answers.ts";

const VOTE: Vote = {
  answerId: "a1",
  member: { layer: 1, place: 1, model: "qwen" },
  first: "member",
  preferred: "second",
  at: 5,
  namesAModel: false,
};

function changed(change: (whole: ReturnType<typeof JSON.parse>) => void): string {
  const whole = JSON.parse(chatAsJson(chat({ votes: [VOTE] })));
  change(whole);
  return JSON.stringify(whole);
}

describe("chats as JSON", () => {
  it("are the same after an import", () => {
    const chats = [chat({ votes: [VOTE] }), chat({ id: "c2", answers: [answer({ retryOf: "a1" }), answer({ error: { message: "m", code: null, status: 503 } })] })];
    assert.deepEqual(importChats(chatsAsJson(chats)), chats);
  });

  it("keep since when a model that thought has written its text", () => {
    const proposals = [proposal({ textS: 5 }), proposal({ phase: "thinks", textS: null }), proposal()];
    const chats = [chat({ answers: [answer({ proposals })] })];
    assert.deepEqual(importChats(chatsAsJson(chats)), chats);
  });

  it("may lack what may be null, and have more than is known", () => {
    const [found] = importChats(
      changed((whole) => {
        delete whole.chats[0].answers[0].seed;
        delete whole.chats[0].votes;
        whole.chats[0].answers[0].later = { a: 1 };
      }),
    );
    assert.equal(found!.answers[0]!.seed, null);
    assert.deepEqual(found!.votes, []);
    assert.ok(!("later" in found!.answers[0]!));
  });

  it("have no answer that is still written", () => {
    const file = chatAsJson(chat({ answers: [answer({ phase: "proposes" })] }));
    assert.equal(importChats(file)[0]!.answers[0]!.phase, "stopped");
  });

  it("cannot change what objects inherit", () => {
    const file = '{"format":"slimmoa-chats","version":1,"chats":[{"id":"x","title":"","createdAt":1,"answers":[],"__proto__":{"votes":[1]}}]}';
    assert.deepEqual(importChats(file)[0]!.votes, []);
  });

  const wrong: [string, string][] = [
    ["{", "The file is not JSON"],
    ["[]", "The file is []. Allowed is an object."],
    ["{}", 'The file is no export of this page: its field "format" is not "slimmoa-chats".'],
    [changed((whole) => (whole.version = 9)), "The file has version 9 of the format. This page reads version 1."],
    [changed((whole) => (whole.chats = 3)), "The file.chats is 3. Allowed is a list."],
    [changed((whole) => (whole.chats[0].answers[0].proposals[1].text = null)), "The file.chats[0].answers[0].proposals[1].text is null. Allowed is a text."],
    [changed((whole) => delete whole.chats[0].title), "The file.chats[0].title is absent. Allowed is a text."],
    [changed((whole) => (whole.chats[0].votes[0].preferred = "x".repeat(99))), `The file.chats[0].votes[0].preferred is "${"x".repeat(39)}.... Allowed is "first", "second", "tie".`],
    [changed((whole) => whole.chats.push(whole.chats[0])), "Two chats of the file have the same id."],
  ];
  for (const [file, message] of wrong) {
    it(`are refused: ${message.slice(0, 60)}`, () => {
      assert.throws(() => importChats(file), (error: Error) => error.name === "ImportError" && error.message.startsWith(message));
    });
  }
});

it("a chat as Markdown has questions, proposals, answers and how they came about", () => {
  const dropped = proposal({ place: 2, model: "late", phase: "dropped", text: "", tokens: null, seconds: 30, detail: "too\nlate" });
  const text = chatAsMarkdown(chat({ answers: [answer({ proposals: [...answer().proposals, dropped], degraded: true })] }));
  const lines = text.split("\n").filter((line) => line);
  assert.deepEqual(lines, [
    "# Sky",
    "Asked on 2026-11-30 00:00 UTC with SlimMoA.",
    "## Question",
    "What colour is the sky?",
    "### Proposal 1 of layer 1: llama",
    "*done, 10 s, 20 tokens*",
    "Blue.",
    "### Proposal 2 of layer 1: qwen",
    "*done, 20 s, 20 tokens*",
    "It is blue by day.",
    "### Proposal 3 of layer 1: late",
    "*dropped: too late, 30 s*",
    "## Answer by writer",
    "The sky is blue.",
    "*asked on 2026-11-30 10:00 UTC, recipe or model sky, done, degraded, 25 s, 4 tokens, seed 7, proposals read in the order 2, 1*",
  ]);
});

describe("votes as rows of alpaca_eval", () => {
  const row = {
    instruction: "What colour is the sky?",
    output_1: "It is blue by day.",
    output_2: "The sky is blue.",
    generator_1: "qwen",
    generator_2: "sky",
  };
  const shown: [Vote["first"], Vote["preferred"], number][] = [
    ["member", "first", 1],
    ["member", "second", 2],
    ["mixture", "first", 2],
    ["mixture", "second", 1],
    ["mixture", "tie", 1.5],
  ];
  for (const [first, preferred, preference] of shown) {
    it(`have the member first, if the ${first} was shown first and the vote is ${preferred}`, () => {
      assert.deepEqual(votesAsRows([chat({ votes: [{ ...VOTE, first, preferred }] })], true), [{ ...row, preference }]);
    });
  }

  it("leave out second votes on the same texts, answers that are gone and, if asked, texts that name a model", () => {
    const votes = [VOTE, { ...VOTE, preferred: "tie" as const }, { ...VOTE, answerId: "gone" }];
    assert.deepEqual(votesAsRows([chat({ votes })], true), [{ ...row, preference: 2 }]);
    assert.deepEqual(votesAsRows([chat({ votes: [{ ...VOTE, namesAModel: true }] })], false), []);
  });
});

it("without a database the chats stay in memory, which the store says", async () => {
  const store = await openStore();
  assert.equal(store.lasting, false);
  const kept = chat();
  await store.put(kept);
  await store.put(chat({ id: "c2", createdAt: kept.createdAt + 1 }));
  kept.title = "changed later";
  assert.deepEqual((await store.list()).map(({ id, title, answers }) => [id, title, answers]), [["c2", "Sky", 1], ["c1", "Sky", 1]]);
  assert.equal((await store.get("c1"))!.title, "Sky");
  await store.remove("c1");
  assert.equal(await store.get("c1"), null);
  await store.removeAll();
  assert.deepEqual(await store.list(), []);
});
