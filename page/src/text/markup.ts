/**
 * Markdown to HTML, for a text that may be hostile.
 *
 * HTML in the text is shown as text, but for a few tags without attributes. Pictures are never loaded. What
 * would take the parser very long, or nests too deep for it, is not parsed. The result still has to be
 * sanitised: `sanitise.ts` does not rely on this file.
 */
import { Marked, type Token, type Tokens } from "marked";

import { withVisibleOverrides } from "./bidi.ts";
import { escaped } from "./escaped.ts";
import { BLOCK_MATH, INLINE_MATH } from "./math_tokens.ts";

/** Definitions of links, `[name]: address`, by name. */
export type Links = Record<string, { href: string | null; title: string | null }>;

/** A longer block is shown as plain text. */
export const LONGEST_BLOCK = 65_536;
/** A longer paragraph has no emphasis and no links. */
const LONGEST_PARAGRAPH = 10_000;
/** Signs of emphasis, links and code that a paragraph may have; marked's time grows with their square. */
const MOST_SIGNS = 600;
/** Formulas at the beginning of lines that a block may have; marked's time grows with their square. */
const MOST_FORMULAS = 200;
/** Lines with so many marks of quotes and lists, or with such an indent, nest too deep. */
const TOO_DEEP = /^(?:[ \t]*(?:>|[*+-][ \t]|\d{1,9}[.)][ \t])){40}|^[ \t]{100}/m;
const BARE_TAG = /^<(?:\/?(?:br|sub|sup|kbd|b|i|em|strong|u|s|del|mark|small)|br ?\/)>$/i;
const WEB = /^(?:https?:\/\/|mailto:)/i;
const ADDRESS = /^https?:\/\/[^\s<>"'`|]+/i;
/** Where plain text ends inside of a paragraph: signs of Markdown, an address, or the end of a line. */
const SIGN = /[\\<![\]`*_~$&\n]| {2,20}\n|https?:\/\//gi;

const markdown = new Marked({ gfm: true, breaks: true }).use({
  extensions: [INLINE_MATH, BLOCK_MATH],
  tokenizer: {
    // No block of HTML: its lines are a paragraph like any other, with Markdown inside.
    html: () => undefined,
    // An address ends before the punctuation of the sentence around it.
    url(source) {
      const found = ADDRESS.exec(source)?.[0].replace(/(?:[.,:;!?*_~]|\)(?![^(]*\())+$/, "");
      if (!found) return undefined;
      const tokens: Token[] = [{ type: "text", raw: found, text: found, escaped: false }];
      return { type: "link", raw: found, text: found, href: found, title: null, tokens };
    },
    // marked's own rule looks for mail addresses at each character, which takes the square of the length.
    inlineText(source) {
      SIGN.lastIndex = 1;
      const end = SIGN.exec(source)?.index ?? source.length;
      const raw = source.slice(0, end);
      return { type: "text", raw, text: raw, escaped: false };
    },
  },
  renderer: {
    html: ({ raw }) => (BARE_TAG.test(raw) ? raw : escaped(raw)),
    heading({ depth, tokens }) {
      const level = Math.min(6, depth + 2);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
    code: ({ text, lang }) => `<pre><code class="${languageClass(lang)}">${escaped(text)}\n</code></pre>`,
    link({ href, title, tokens }) {
      const words = this.parser.parseInline(tokens);
      if (!WEB.test(href)) return words;
      return `<a href="${escaped(href)}"${title ? ` title="${escaped(title)}"` : ""}>${words}</a>`;
    },
    image: ({ href, text }) => picture(href, text),
    checkbox: ({ checked }) => `<span class="task">${checked ? "☑" : "☐"}</span> `,
  },
});

/** A lexer that leaves a paragraph alone if it would take too long. */
class BoundedLexer extends markdown.Lexer {
  override inlineTokens(source: string, tokens: Token[] = []): Token[] {
    if (source.length <= LONGEST_PARAGRAPH && signs(source) <= MOST_SIGNS) {
      return super.inlineTokens(source, tokens);
    }
    tokens.push({ type: "text", raw: source, text: source, escaped: false } satisfies Tokens.Text);
    return tokens;
  }
}

/**
 * HTML of one block of Markdown; null if the block is too long or nests too deep to be parsed.
 *
 * @param block the text
 * @param links definitions of links that the text before has; those of the block are added
 */
export function html(block: string, links: Links): string | null {
  if (block.length > LONGEST_BLOCK || TOO_DEEP.test(block) || formulas(block) > MOST_FORMULAS) return null;
  try {
    const lexer = new BoundedLexer(markdown.defaults);
    lexer.tokens.links = links as typeof lexer.tokens.links;
    return markdown.parser(lexer.lex(withVisibleOverrides(block))) as string;
  } catch {
    return null; // the stack was too small for the nesting
  }
}

function formulas(block: string): number {
  return block.match(/^(?:\$\$|\\\[)/gm)?.length ?? 0;
}

function signs(source: string): number {
  return source.match(/[*_~`[\]<!\\$]+/g)?.length ?? 0;
}

function languageClass(lang: string | undefined): string {
  const name = /^[\w+#.-]{1,30}/.exec(lang ?? "")?.[0];
  return name ? `language-${name.toLowerCase()}` : "";
}

/** A picture as words. A request for the picture would tell its server who reads the text. */
function picture(href: string, alt: string): string {
  const words = escaped(alt ? `Picture: ${alt}` : "Picture");
  if (/^data:/i.test(href)) return `<span class="picture">${words} (inside of the text, not shown)</span>`;
  const address = escaped(href);
  if (!WEB.test(href)) return `<span class="picture">${words} (${address})</span>`;
  return `<a class="picture" href="${address}">${words} (${address})</a>`;
}
