import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { BlockSplitter, fencedCode, LONG_LIST } from "../../src/text/blocks.ts";

function blocks(text: string): string[] {
  return new BlockSplitter().advance(text, true).map(({ start, end }) => text.slice(start, end));
}

/** The blocks that are found while a text grows by a few characters at a time. */
function grown(text: string, step: number): string[] {
  const splitter = new BlockSplitter();
  const found: string[] = [];
  for (let end = step; end < text.length + step; end += step) {
    const now = text.slice(0, end);
    found.push(...splitter.advance(now, end >= text.length).map((block) => now.slice(block.start, block.end)));
  }
  return found;
}

const TEXT = [
  "# Title",
  "One\nparagraph.",
  "- a\n- b\n\n  inside of b\n\n- c",
  "```js\nlet a;\n\n# not a title\n```",
  "    indented\n\n    code",
  "> quoted\n> twice",
  "| a |\n|---|\n| b |",
  "1. x\n   ```\n   y\n\n   z\n   ```\n2. w",
  "Last.",
].join("\n\n");

describe("blocks", () => {
  it("end where later text cannot change them", () => {
    assert.deepEqual(blocks(TEXT).map((block) => block.trim()), [
      "# Title",
      "One\nparagraph.",
      "- a\n- b\n\n  inside of b\n\n- c",
      "```js\nlet a;\n\n# not a title\n```",
      "indented\n\n    code",
      "> quoted\n> twice",
      "| a |\n|---|\n| b |",
      "1. x\n   ```\n   y\n\n   z\n   ```\n2. w",
      "Last.",
    ]);
  });

  for (const step of [1, 2, 7, 1000]) {
    it(`are the same when the text grows by ${step} characters`, () => assert.deepEqual(grown(TEXT, step), blocks(TEXT)));
  }

  it("hold the whole text together", () => assert.equal(blocks(TEXT).join("").replace(/\n/g, ""), TEXT.replace(/\n/g, "")));

  it("end before a heading and a fence without a blank line", () => {
    assert.deepEqual(blocks("text\n# title\nmore\n```\ncode\n```\nend"), ["text\n", "# title\n", "more\n", "```\ncode\n```\n", "end"]);
  });

  it("do not end at a fence of other marks, or of fewer", () => {
    assert.equal(blocks("````\n```\n~~~\n````\nx").length, 2);
    assert.equal(blocks("~~~\n```\n~~~\nx").length, 2);
  });

  it("read a line with a backtick behind three as no fence", () => assert.equal(blocks("``` a ` b\n\nx").length, 2));

  it("cut a long list between its items", () => {
    const list = "- item\n".repeat(LONG_LIST / 7 + 200);
    const found = blocks(list);
    assert.equal(found.length, 2);
    assert.ok(found.every((block) => block.startsWith("- item\n")));
  });

  it("tell of the fence that is open", () => {
    const splitter = new BlockSplitter();
    splitter.advance("text\n\n```Python title=x\nprint", false);
    assert.deepEqual([splitter.openFence?.language, splitter.openFence?.bodyStart], ["python", 24]);
    splitter.advance("text\n\n```Python title=x\nprint\n```\n", false);
    assert.equal(splitter.openFence, null);
  });

  it("look at each line once, however often the text grows", () => {
    assert.equal(grown("```\na\n```\n".repeat(10_000), 1_000).length, 10_000);
    assert.equal(grown("x".repeat(2_000_000), 20_000).length, 1);
  });
});

describe("code of a fence", () => {
  const cases: [string, string, { language: string; code: string } | null][] = [
    ["closed", "```js\na\nb\n```\n", { language: "js", code: "a\nb" }],
    ["not closed", "```\na\n", { language: "", code: "a" }],
    ["with nothing in it", "```js\n```", { language: "js", code: "" }],
    ["without a second line", "```js", { language: "js", code: "" }],
    ["indented", "  ```\n  a\n    b\n  ```", { language: "", code: "a\n  b" }],
    ["with a language that is no word", '```"><img\na\n```', { language: "", code: "a" }],
    ["that is no fence", "text", null],
  ];
  for (const [name, block, expected] of cases) it(name, () => assert.deepEqual(fencedCode(block), expected));
});
