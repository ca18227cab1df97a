/** Marks that change the direction of text. In code they can make lines look like other lines. */
const MARKS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** Code with its direction marks as visible words, such as `⟦U+202E⟧`. */
export function withVisibleMarks(code: string): string {
  return code.replace(MARKS, (mark) => `⟦U+${mark.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟧`);
}
