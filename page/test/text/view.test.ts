import { frames, host, settled } from "../dom.ts";
import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { endOfPiece } from "../../src/text/elements.ts";
import { declarations, formulaElements } from "../../src/text/sanitise.ts";
import { TextView } from "../../src/text/view.ts";

function shown(text: string): HTMLElement {
  const element = host();
  new TextView(element).update(text, false);
  frames();
  return element;
}

const TEXT = "# Title\n\nOne *two*.\n\n```js\nlet a = 1;\n```\n\n| a |\n|:-:|\n| b |\n\nLast [x][y].\n\n[y]: https://a.example\n";

describe("a growing text", () => {
  it("keeps the elements of blocks that are finished", () => {
    const element = host();
    const view = new TextView(element);
    view.update("One.\n\nTw", true);
    frames();
    const [first] = element.children;
    view.update("One.\n\nTwo *three*.\n\nFour", true);
    frames();
    assert.equal(element.children[0], first);
    assert.deepEqual([...element.children].map((block) => block.textContent?.trim()), ["One.", "Two three.", "Four"]);
  });

  for (const step of [11, 40]) {
    it(`looks in the end like the whole text when it grows by ${step}`, () => {
      const element = host();
      const view = new TextView(element);
      for (let end = 1; end <= TEXT.length; end += step) {
        view.update(TEXT.slice(0, end), true);
        frames();
      }
      view.update(TEXT, false);
      frames();
      assert.equal(element.innerHTML, shown(TEXT).innerHTML);
    });
  }

  it("adds to open code at its end, and keeps the element when the code is complete", () => {
    const element = host();
    const view = new TextView(element);
    view.update("```js\nlet", true);
    frames();
    const code = element.querySelector("code")!;
    view.update("```js\nlet a = 1;\nlet b", true);
    frames();
    assert.equal(code.textContent, "let a = 1;\nlet b");
    view.update("```js\nlet a = 1;\nlet b;\n```\n\nend", false);
    frames();
    assert.equal(element.querySelector("code"), code);
    assert.equal(code.textContent, "let a = 1;\nlet b;");
  });

  it("that turns out another keeps what both begin with", () => {
    const element = host();
    const view = new TextView(element);
    view.update("One.\n\nTwo.", true);
    frames();
    const [first] = element.children;
    view.update("One.\n\nTo.", false);
    frames();
    assert.equal(element.children[0], first);
    assert.deepEqual([...element.children].map((block) => block.textContent?.trim()), ["One.", "To."]);
  });

  it("says once that it is shown whole", () => {
    let times = 0;
    const view = new TextView(host(), () => times++);
    view.update("a\n\nb", true);
    frames();
    assert.equal(times, 0);
    view.update("a\n\nb", false);
    view.update("a\n\nb", false);
    frames();
    assert.equal(times, 1);
  });

  it("is plain while its last block is very long", () => {
    const element = host();
    const view = new TextView(element);
    view.update("*a* ".repeat(10_000), true);
    frames();
    assert.equal(element.querySelector("em"), null);
    view.update("*a* ".repeat(10_001), true);
    frames();
    assert.equal(element.textContent, "*a* ".repeat(10_001));
  });
});

describe("a long text", () => {
  it("of many blocks is plain behind the first ones, and whole", () => {
    const element = host();
    const text = "*a*\n\n".repeat(5_000);
    new TextView(element, undefined, 20).update(text, false);
    frames();
    assert.equal(element.children.length, 20);
    assert.equal(element.querySelectorAll("em").length, 20);
    assert.equal(element.textContent!.replace(/[\s*]/g, ""), "a".repeat(5_000));
  });

  it("without a blank line is shown in plain pieces", () => {
    const text = "word ".repeat(100_000);
    const element = shown(text);
    assert.equal(element.textContent, text);
    assert.ok([...element.querySelectorAll(".plain")].every((piece) => piece.textContent!.length <= 8_001));
  });

  it("in one line is cut without a search through all of it, and never inside of a character", () => {
    const looked: number[] = [];
    const line = {
      length: 2_000_000,
      charCodeAt: (at: number) => (at === 8_000 ? 0xdc00 : 0x78),
      slice(from: number, to: number) {
        looked.push(to - from);
        return "x".repeat(to - from);
      },
    } as unknown as string;
    assert.equal(endOfPiece(line, 0, 2_000_000), 8_001);
    assert.equal(endOfPiece(line, 1_900_000, 2_000_000), 1_908_000);
    assert.deepEqual(looked, [4_000, 4_000]);
  });

  it("of code in one line is shown in pieces of whole characters", () => {
    const code = `x${"😀".repeat(40_000)}`;
    const element = shown(`\`\`\`js\n${code}\n\`\`\``);
    const nodes = [...element.querySelector("code")!.childNodes].map((node) => node.textContent!);
    assert.equal(nodes.join(""), code);
    assert.ok(nodes.length > 2 && nodes.every((text) => text.length <= 48_000 && !/[\ud800-\udfff]/u.test(text)));
  });

  it("of code is shown in pieces of whole lines", () => {
    const code = "let a = 1;\n".repeat(5_000);
    const element = shown(`\`\`\`js\n${code}\`\`\``);
    const pieces = [...element.querySelectorAll(".piece")];
    assert.ok(pieces.length > 4);
    assert.ok(pieces.slice(0, -1).every((piece) => piece.textContent!.endsWith("\n")));
    assert.equal(element.querySelector("code")!.textContent, code.trimEnd());
  });
});

describe("a hostile text", () => {
  const texts = [
    "<script>alert(1)</script><img src=x onerror=alert(1)><svg onload=alert(1)><iframe src=//evil.example></iframe>",
    "[a](javascript:alert(1)) [b](data:text/html,x) [c](//evil.example) <javascript:alert(1)>",
    "![a](https://evil.example/x.png) ![b][c]\n\n[c]: https://evil.example/y.png",
    '[a](https://a.example "\\" onmouseover=alert(1) x=\\"")',
    '```html"><img src=x onerror=alert(1)>\n<script>alert(1)</script>\n```',
    "| a |\n|---|\n| <img src=x onerror=alert(1)> |",
    '<a href="https://evil.example" style="position:fixed">x</a> <div id="page">x</div> <base href=//evil.example>',
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)></style></table></mtext></math>",
  ];
  for (const text of texts) {
    it(`such as ${text.slice(0, 40).replace(/\n/g, " ")} is harmless`, () => {
      const element = shown(text);
      assert.equal(element.querySelector("script, img, svg, iframe, style, form, input, base, math, object, [style], [id]"), null);
      for (const each of element.querySelectorAll("*")) {
        assert.ok(each.getAttributeNames().every((name) => !name.startsWith("on")));
      }
      for (const link of element.querySelectorAll("a")) {
        assert.match(link.href, /^https:/);
        assert.equal(link.rel, "noopener noreferrer");
        assert.equal(link.target, "_blank");
      }
    });
  }
});

describe("what a text is shown with", () => {
  it("is a frame around tables, with the columns' sides", () => {
    const element = shown(TEXT);
    assert.equal(element.querySelector(".table")?.getAttribute("role"), "group");
    assert.equal(element.querySelector("th")?.getAttribute("align"), "center");
  });

  it("is a link for a name that only later text defines", () => {
    assert.equal(shown(TEXT).querySelector("a")?.getAttribute("href"), "https://a.example");
  });

  it("is a heading that skips no level", () => {
    const element = shown("# a\n\n#### b\n\n##### c\n\n## d");
    assert.deepEqual([...element.querySelectorAll("h3, h4, h5, h6")].map(({ localName }) => localName), ["h3", "h4", "h5", "h4"]);
  });

  it("is a number at which a list begins", () => assert.equal(shown("3. a").querySelector("ol")?.getAttribute("start"), "3"));

  it("is colour in code and a drawn formula, once their libraries are there", async () => {
    const element = shown("```python\ndef a(): pass\n```\n\n$\\frac{a}{b}$ and $\\nothing{x}$");
    await settled();
    assert.equal(element.querySelector(".hljs-keyword")?.textContent, "def");
    assert.equal(element.querySelector("mfrac")?.textContent, "ab");
    assert.equal(element.querySelector(".math-failed")?.textContent, "\\nothing{x}");
  });
});

describe("styles of formulas", () => {
  it("never stay attributes", () => {
    const fragment = formulaElements('<math style="padding:3pt"><mi style="color:red" onclick="x" mathcolor="red">a</mi></math>');
    assert.deepEqual([...fragment.querySelectorAll("*")].flatMap((each) => each.getAttributeNames()), []);
  });

  it("are only those that are known, and have no addresses", () => {
    const style = "padding:3pt; position:fixed; border:url(//evil.example);width:1em;;height";
    assert.deepEqual(declarations(style), [["padding", "3pt"], ["width", "1em"]]);
  });
});
