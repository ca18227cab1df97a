import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { withVisibleMarks } from "../../src/text/bidi.ts";
import { html, LONGEST_BLOCK } from "../../src/text/markup.ts";
import { formulaAt } from "../../src/text/math_tokens.ts";
import { secondsInWords } from "../../src/text/seconds.ts";

function page(text: string): string {
  return html(text, Object.create(null))!.trim();
}

describe("HTML of Markdown", () => {
  const cases: [string, string, string][] = [
    ["emphasis and code", "**a** *b* `c<d`", "<p><strong>a</strong> <em>b</em> <code>c&lt;d</code></p>"],
    ["a line break", "a\nb", "<p>a<br>b</p>"],
    ["headings below those of the page", "# a", "<h3>a</h3>"],
    ["an address, without the sentence's end", "see https://a.b/c?d=e.", '<p>see <a href="https://a.b/c?d=e">https://a.b/c?d=e</a>.</p>'],
    ["bare tags", "a<br>b<sub>2</sub>", "<p>a<br>b<sub>2</sub></p>"],
    ["other tags as text", "<b onclick=x>a</b>", "<p>&lt;b onclick=x&gt;a</b></p>"],
    ["a block of HTML as text", "<script>\nalert(1)\n</script>", "<p>&lt;script&gt;<br>alert(1)<br>&lt;/script&gt;</p>"],
    ["a link to a script as its words", "[a](javascript:alert(1))", "<p>a</p>"],
    ["a link to this server as its words", "[a](/v1/state)", "<p>a</p>"],
    [
      "a picture as a link with its address",
      "![leak](https://evil.example/x.png?a)",
      '<p><a class="picture" href="https://evil.example/x.png?a">Picture: leak (https://evil.example/x.png?a)</a></p>',
    ],
    ["a picture inside of the text as words", "![a](data:image/png;base64,AA)", '<p><span class="picture">Picture: a (inside of the text, not shown)</span></p>'],
    ["formulas", "$a_b$", '<p><span class="math math-inline">a_b</span></p>'],
    ["amounts of money as text", "from $5 to $10", "<p>from $5 to $10</p>"],
    ["lines of a formula that look like a list", "$$\na\n+ b\n$$", '<p><span class="math math-display">a\n+ b</span></p>'],
    ["tasks", "- [x] a", '<ul>\n<li><span class="task">☑</span> a</li>\n</ul>'],
    ["names of links that objects have", "[a][constructor] [b][__proto__]", "<p>[a][constructor] [b][<strong>proto</strong>]</p>"],
    ["overrides of direction as words", "a\u202eb", "<p>a⟦U+202E⟧b</p>"],
  ];
  for (const [name, text, expected] of cases) it(`has ${name}`, () => assert.equal(page(text), expected));

  it("knows links that another block has defined", () => {
    const links = Object.create(null);
    html("[a]: https://a.example", links);
    assert.equal(html("[x][a]", links)!.trim(), '<p><a href="https://a.example">x</a></p>');
  });

  it("is not made of a block that is too long or nests too deep", () => {
    assert.equal(html("a ".repeat(LONGEST_BLOCK), {}), null);
    assert.equal(html(`${"> ".repeat(5_000)}a`, {}), null);
    assert.equal(html(`${"- ".repeat(5_000)}a`, {}), null);
    assert.equal(html(Array.from({ length: 300 }, (_, n) => `${" ".repeat(2 * n)}- a`).join("\n"), {}), null);
  });

  // marked takes a minute or more for some of these texts; the test ends only if they are left alone.
  const hard = ["**a *b ", "[a](b", "![a](", "a.", "a@", "$$a\n", "\\(a", "`a ``b ", "<a ", "&", "~~a", "_a __b ", "|", "[", "www.", "[a]: b\n"];
  for (const piece of hard) {
    it(`of ${JSON.stringify(piece)} many times does not take long`, () => {
      for (const length of [9_000, LONGEST_BLOCK - 10]) {
        assert.notEqual(html(`${piece.repeat(length / piece.length)}@`, Object.create(null)), "");
      }
    });
  }
});

describe("formulas", () => {
  const cases: [string, string | null][] = [
    ["$a$ b", "a"],
    ["$$a$$", "a"],
    ["\\(a\\)", "a"],
    ["\\[a\\]", "a"],
    ["$a\\$b$", "a\\$b"],
    ["$ a$", null],
    ["$5 and $", null],
    ["$5-US$10", null],
    ["$a\n\nb$", null],
    ["$$a\n\nb$$", null],
    ["$", null],
    ["$$", null],
    ["\\[", null],
  ];
  for (const [text, tex] of cases) it(`in ${JSON.stringify(text)}`, () => assert.equal(formulaAt(text)?.tex ?? null, tex));
});

it("marks of direction are visible in code", () => {
  assert.equal(withVisibleMarks("if (a\u202e\u2066)"), "if (a⟦U+202E⟧⟦U+2066⟧)");
});

it("seconds are in words", () => {
  const words = [0, 0.054, 0.996, 4.25, 59.94, 59.96, 65, 120, 3_725].map(secondsInWords);
  assert.deepEqual(words, ["0 s", "0.05 s", "1 s", "4.3 s", "59.9 s", "1 min", "1 min 5 s", "2 min", "1 h 2 min"]);
});
