/** Marks sentences in a text that is shown, without changing anything else of it. */
import { onlyInOne, sentencesOf } from "./sentences.ts";

/** Elements whose text is made of sentences. */
const SENTENCES_IN = "p, li, h3, h4, h5, h6, td, th, .plain";
/** Parts without sentences. */
const NOT_IN = "pre, code, .math, .code-head";

interface Piece {
  node: Text;
  start: number;
}

/** A sentence as it stands on the page: parts of text nodes. */
interface ShownSentence {
  words: string;
  pieces: Piece[];
  start: number;
  end: number;
}

/**
 * Mark in two texts on the page the sentences that only one of them has.
 *
 * Returns: how many sentences each text has, and how many of them are marked.
 */
export function markDifferences(one: HTMLElement, other: HTMLElement): { all: number; marked: number }[] {
  const shown = [shownSentences(one), shownSentences(other)] as const;
  const only = onlyInOne(
    shown[0].map(({ words }) => words),
    shown[1].map(({ words }) => words),
  );
  return shown.map((sentences, side) => {
    const marked = sentences.filter((_, n) => only[side]![n]);
    // From the end, because a mark splits the text nodes of the sentences before it no more.
    for (const sentence of [...marked].reverse()) mark(sentence);
    return { all: sentences.length, marked: marked.length };
  });
}

function shownSentences(root: HTMLElement): ShownSentence[] {
  const found: ShownSentence[] = [];
  for (const element of root.querySelectorAll<HTMLElement>(SENTENCES_IN)) {
    const pieces: Piece[] = [];
    let text = "";
    const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode as Text;
      const parent = node.parentElement!;
      // A list inside of an item has its own turn.
      if (parent.closest(SENTENCES_IN) !== element || parent.closest(NOT_IN)) continue;
      pieces.push({ node, start: text.length });
      text += node.data;
    }
    for (const { start, end } of sentencesOf(text)) found.push({ words: text.slice(start, end), pieces, start, end });
  }
  return found;
}

function mark({ pieces, start, end }: ShownSentence): void {
  for (const piece of [...pieces].reverse()) {
    const from = Math.max(0, start - piece.start);
    const to = Math.min(piece.node.length, end - piece.start);
    if (from >= to) continue;
    const range = document.createRange();
    range.setStart(piece.node, from);
    range.setEnd(piece.node, to);
    const element = document.createElement("mark");
    element.className = "only-here";
    range.surroundContents(element);
  }
}
