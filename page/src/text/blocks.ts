/**
 * Cuts growing Markdown into blocks that later text cannot change.
 *
 * A finished block is rendered once. Only the text behind the last finished block is rendered again when
 * the text grows. The cuts need not be those of a Markdown parser: a parser reads each block alone, and a
 * block that holds several of the parser's own blocks is shown correctly too.
 */

/** A part of the text: offsets of its first character and of the character behind its last. */
export interface Block {
  start: number;
  end: number;
  /** Whether the block is shown as it is written, because it is too long to be read as Markdown. */
  plain?: boolean;
}

/** A fence of code at the top level: its language, and where its code begins. */
export interface OpenFence {
  language: string;
  bodyStart: number;
}

/** A list that is longer than these characters is cut between its items, so that the last block stays short. */
export const LONG_LIST = 4_000;
/** So many characters of a line are enough to tell what the line is. */
const HEAD = 400;

const ITEM = /^ {0,3}(?:[-*+]|\d{1,9}[.)])(?:[ \t]|$)/;
const HEADING = /^ {0,3}#{1,6}(?:[ \t]|$)/;
const FENCE = /^( {0,3})(`{3,}|~{3,})([^\n]*)$/;
const FENCE_IN_LIST = /^[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*(`{3,}|~{3,})([^\n]*)$/;
const INDENTED = /^(?: {4}|\t| {1,3}\t)/;
const INSIDE_ITEM = /^(?: {2}|\t)/;

/** Finds finished blocks line by line. Each line is looked at once, however often the text grows. */
export class BlockSplitter {
  /** Where the unfinished block begins. */
  tail: number;
  private next: number;
  private started = false;
  private blankBefore = false;
  private list = false;
  private indented = false;
  private fence: { mark: string; top: boolean; language: string; bodyStart: number } | null = null;

  /** @param start where in the text to begin: behind a finished block */
  constructor(start = 0) {
    this.tail = this.next = start;
  }

  /** The fence of code that the unfinished block is, if it is one. */
  get openFence(): OpenFence | null {
    return this.fence?.top ? this.fence : null;
  }

  /**
   * The blocks that have been finished since the last call.
   *
   * @param text the whole text: that of the last call with more behind it
   * @param whole whether nothing will follow; the rest is then a finished block too
   */
  advance(text: string, whole: boolean): Block[] {
    const blocks: Block[] = [];
    while (this.next < text.length) {
      const newline = text.indexOf("\n", this.next);
      if (newline < 0 && !whole) break;
      const start = this.next;
      const end = newline < 0 ? text.length : newline;
      this.next = newline < 0 ? text.length : newline + 1;
      this.line(text, start, end, blocks);
    }
    if (whole) this.finish(text.length, blocks);
    return blocks;
  }

  private line(text: string, start: number, end: number, blocks: Block[]): void {
    const line = text.slice(start, Math.min(end, start + HEAD)).trimEnd();
    if (this.fence) return this.lineOfFence(line, this.fence, blocks);
    if (line === "" && end - start <= HEAD) {
      this.blankBefore = this.started;
      // Nothing goes on behind a blank line but lists and indented code.
      if (this.started && !this.list && !this.indented) this.finish(this.next, blocks);
      return;
    }
    if (this.started && this.cutsBefore(line, start)) this.finish(start, blocks);
    if (!this.started) {
      this.tail = start;
      this.started = true;
      this.list = ITEM.test(line);
      this.indented = INDENTED.test(line);
    }
    this.blankBefore = false;
    this.openFenceAt(line, start);
    if (!this.list && HEADING.test(line)) this.finish(this.next, blocks);
  }

  private lineOfFence(line: string, fence: { mark: string; top: boolean }, blocks: Block[]): void {
    const closing = line.trimStart();
    const closes = closing.startsWith(fence.mark) && closing === fence.mark[0]!.repeat(closing.length);
    if (!closes || (fence.top && INDENTED.test(line))) return;
    this.fence = null;
    if (fence.top) this.finish(this.next, blocks);
  }

  private cutsBefore(line: string, start: number): boolean {
    if (this.list) {
      if (ITEM.test(line)) return start - this.tail > LONG_LIST && !line.startsWith(" ");
      return !INSIDE_ITEM.test(line) && (this.blankBefore || HEADING.test(line) || isFence(line));
    }
    if (this.blankBefore) return !INDENTED.test(line);
    return HEADING.test(line) || isFence(line);
  }

  private openFenceAt(line: string, start: number): void {
    const found = this.list ? FENCE_IN_LIST.exec(line) : isFence(line) ? FENCE.exec(line) : null;
    if (!found) return;
    const [mark, info] = this.list ? [found[1]!, found[2]!] : [found[2]!, found[3]!];
    if (mark.startsWith("`") && info.includes("`")) return;
    const top = !this.list && start === this.tail;
    this.fence = { mark, top, language: languageOf(info), bodyStart: this.next };
  }

  private finish(end: number, blocks: Block[]): void {
    if (this.started) blocks.push({ start: this.tail, end });
    this.tail = end;
    this.started = this.blankBefore = this.list = this.indented = false;
    this.fence = null;
  }
}

/** The parts of a block that is a fence of code at the top level; null if the block is something else. */
export function fencedCode(block: string): { language: string; code: string } | null {
  const first = block.indexOf("\n");
  const opening = FENCE.exec((first < 0 ? block : block.slice(0, first)).trimEnd());
  if (!opening || (opening[2]!.startsWith("`") && opening[3]!.includes("`"))) return null;
  if (first < 0) return { language: languageOf(opening[3]!), code: "" };
  const mark = opening[2]!;
  let end = block.trimEnd().length;
  const lastLine = block.lastIndexOf("\n", end - 1) + 1;
  const closing = block.slice(lastLine, end).trim();
  if (lastLine > first && closing.length >= mark.length && closing === mark[0]!.repeat(closing.length)) {
    end = Math.max(first + 1, lastLine - 1);
  } else {
    end = block.endsWith("\n") ? block.length - 1 : block.length;
  }
  return { language: languageOf(opening[3]!), code: withoutIndent(block.slice(first + 1, end), opening[1]!) };
}

/** Whether a fence of code begins at an offset of a text. */
export function startsFence(text: string, offset: number): boolean {
  return /^ {0,3}(?:```|~~~)/.test(text.slice(offset, offset + 6));
}

function withoutIndent(code: string, indent: string): string {
  return indent ? code.replace(new RegExp(`^ {1,${indent.length}}`, "gm"), "") : code;
}

function isFence(line: string): boolean {
  const found = FENCE.exec(line);
  return found !== null && !(found[2]!.startsWith("`") && found[3]!.includes("`"));
}

function languageOf(info: string): string {
  return /^[ \t]*([\w+#.-]{1,30})/.exec(info)?.[1]?.toLowerCase() ?? "";
}
