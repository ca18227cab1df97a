/** Formulas in Markdown: `$a$`, `$$a$$`, `\(a\)` and `\[a\]`, as an extension of marked. */
import type { TokenizerAndRendererExtension, Tokens } from "marked";

import { escaped } from "./escaped.ts";

/** A longer formula is shown as it is written. */
export const LONGEST_FORMULA = 4_000;

interface Formula {
  raw: string;
  tex: string;
  display: boolean;
}

/** The formula at the beginning of a text, or null. */
export function formulaAt(text: string): Formula | null {
  if (text.startsWith("$$")) return between(text, "$$", "$$", true);
  if (text.startsWith("\\[")) return between(text, "\\[", "\\]", true);
  if (text.startsWith("\\(")) return between(text, "\\(", "\\)", false);
  return text.startsWith("$") ? dollars(text) : null;
}

function between(text: string, opening: string, closing: string, display: boolean): Formula | null {
  const near = text.slice(0, LONGEST_FORMULA);
  const end = near.indexOf(closing, opening.length);
  const tex = near.slice(opening.length, end).trim();
  if (end < 0 || !tex || /\n[ \t]*\n/.test(tex)) return null;
  return { raw: near.slice(0, end + closing.length), tex, display };
}

/**
 * `$a$`, by pandoc's rules, so that amounts of money stay text: no space behind the first sign or before the
 * second, and no digit behind the second.
 */
function dollars(text: string): Formula | null {
  if (/\s/.test(text[1] ?? " ")) return null;
  for (let at = 1; at < Math.min(text.length, LONGEST_FORMULA); at++) {
    const sign = text[at]!;
    if (sign === "\\") at++;
    else if (sign === "\n" && text[at + 1] === "\n") return null;
    else if (sign === "$") {
      const fits = at > 1 && !/\s/.test(text[at - 1]!) && !/[\d$]/.test(text[at + 1] ?? "");
      return fits ? { raw: text.slice(0, at + 1), tex: text.slice(1, at), display: false } : null;
    }
  }
  return null;
}

function firstSign(text: string): number | undefined {
  const at = text.search(/\$|\\[([]/);
  return at < 0 ? undefined : at;
}

/** In front of the formula's source until the formula is drawn, and where drawing fails. */
function source(token: Tokens.Generic): string {
  const kind = token["display"] ? "math math-display" : "math math-inline";
  return `<span class="${kind}">${escaped(token["tex"] as string)}</span>`;
}

/** Formulas inside of paragraphs. */
export const INLINE_MATH: TokenizerAndRendererExtension = {
  name: "inlineMath",
  level: "inline",
  start: (text) => firstSign(text),
  tokenizer(text) {
    const found = formulaAt(text);
    return found ? { type: "inlineMath", ...found } : undefined;
  },
  renderer: source,
};

/** Formulas that are paragraphs of their own: their lines are not read as lists or headings. */
export const BLOCK_MATH: TokenizerAndRendererExtension = {
  name: "blockMath",
  level: "block",
  start(text) {
    const at = text.search(/^(?:\$\$|\\\[)/m);
    return at < 0 ? undefined : at;
  },
  tokenizer(text) {
    if (!text.startsWith("$$") && !text.startsWith("\\[")) return undefined;
    const found = formulaAt(text);
    if (!found || !/^[ \t]*(?:\n|$)/.test(text.slice(found.raw.length))) return undefined;
    return { type: "blockMath", ...found };
  },
  renderer: (token) => `<p>${source(token)}</p>`,
};
