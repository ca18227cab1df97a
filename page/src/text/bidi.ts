/** Marks that change the direction of text, and so can make a line look like another line. */
const MARKS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
/** Marks that turn letters around whatever their script is. No language needs them. */
const OVERRIDES = /[\u202d\u202e]/g;

/** Code with all marks of direction as visible words, such as `⟦U+202E⟧`. */
export function withVisibleMarks(code: string): string {
  return code.replace(MARKS, visible);
}

/** Prose with overrides of direction as visible words. The other marks belong to scripts that run to the left. */
export function withVisibleOverrides(prose: string): string {
  return prose.replace(OVERRIDES, visible);
}

function visible(mark: string): string {
  return `⟦U+${mark.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟧`;
}
