/**
 * Which sentences only one of two texts has.
 *
 * Models say the same thing in other words, and a comparison by character would mark everything. So a sentence
 * counts as shared if the other text has a sentence with mostly the same words.
 */

/** Sentences of which so many words are the same (Dice's coefficient) count as shared. */
const ALIKE = 0.6;
/** Behind so many sentences of a text nothing is marked: the time grows with their number. */
const MOST = 3_000;

/** A sentence by its offsets in the text, without the white space around it. */
export interface Sentence {
  start: number;
  end: number;
}

/** The sentences of a text. */
export function sentencesOf(text: string): Sentence[] {
  const found: Sentence[] = [];
  for (const { index, segment } of segments(text)) {
    const words = segment.trim();
    if (!words) continue;
    const start = index + segment.indexOf(words[0]!);
    found.push({ start, end: start + words.length });
  }
  return found;
}

function segments(text: string): Iterable<{ index: number; segment: string }> {
  if (typeof Intl.Segmenter === "function") return new Intl.Segmenter(undefined, { granularity: "sentence" }).segment(text);
  return [...text.matchAll(/[^.!?\n]+(?:[.!?]+(?=\s|$)|\n|[.!?]|$)/g)].map((match) => ({ index: match.index, segment: match[0] }));
}

/**
 * For each of two lists of sentences, which of them the other list does not have.
 *
 * Sentences without any word are never marked.
 */
export function onlyInOne(one: string[], other: string[]): [boolean[], boolean[]] {
  const left = one.map(wordsOf);
  const right = other.map(wordsOf);
  return [missingIn(left, right), missingIn(right, left)];
}

function wordsOf(sentence: string): Set<string> {
  return new Set(sentence.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []);
}

function missingIn(sentences: Set<string>[], others: Set<string>[]): boolean[] {
  const places = new Map<string, number[]>();
  others.slice(0, MOST).forEach((words, n) => {
    for (const word of words) {
      const list = places.get(word);
      if (list) list.push(n);
      else places.set(word, [n]);
    }
  });
  return sentences.map((words, n) => n < MOST && words.size > 0 && !hasAlike(words, others, places));
}

/** Whether one of the others is alike. */
function hasAlike(words: Set<string>, others: Set<string>[], places: Map<string, number[]>): boolean {
  const shared = new Map<number, number>();
  for (const word of words) {
    for (const n of places.get(word) ?? []) shared.set(n, (shared.get(n) ?? 0) + 1);
  }
  for (const [n, count] of shared) {
    if ((2 * count) / (words.size + others[n]!.size) >= ALIKE) return true;
  }
  return false;
}
