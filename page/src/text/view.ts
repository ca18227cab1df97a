/** Shows one text that may still grow. The blocks that are finished keep their elements. */
import { withVisibleMarks } from "./bidi.ts";
import { BlockSplitter, fencedCode, startsFence, type Block } from "./blocks.ts";
import { appendCode, appendPlainly, codeFigure, endOfPiece, finishElements, plainText, type CodeFigure } from "./elements.ts";
import { schedule, unschedule, type Worker } from "./frame_work.ts";
import { finishLater } from "./later.ts";
import { html, LONGEST_BLOCK, type Links } from "./markup.ts";
import { textElements } from "./sanitise.ts";

/** A longer last block is shown as plain text until it is finished. */
const LONGEST_GROWING = 16_000;
/** Of the time that goes by, at most this share is used to render the last block again. */
const SHARE = 0.1;
/** From this number of blocks on, a browser lays out only the blocks that are in sight. A block was in sight when it
 *  was written, so its size is known. */
const MANY_BLOCKS = 8;
/** Behind so many blocks the rest of a text is shown as plain text. */
const MOST_BLOCKS = 5_000;

export class TextView implements Worker {
  private text = "";
  private growing = true;
  private splitter = new BlockSplitter();
  private found: Block[] = [];
  /** How many of `found` have an element. */
  private shown = 0;
  /** Offset at which the text of each element in `elements` ends. */
  private ends: number[] = [];
  private elements: HTMLElement[] = [];
  private links: Links = Object.create(null) as Links;
  /** The level of the last heading. The page's own headings end with level 2. */
  private level = 2;
  private tail: HTMLElement | null = null;
  private openCode: { figure: CodeFigure; from: number; until: number } | null = null;
  private tailEnd = -1;
  private tailAt = 0;
  private tailCost = 0;
  private whole = false;

  /**
   * @param host the element that gets the blocks
   * @param onWhole called when all of a text that does not grow is shown
   * @param mostBlocks behind so many blocks the rest of a text is shown as plain text
   */
  constructor(
    private readonly host: HTMLElement,
    private readonly onWhole: () => void = () => {},
    private readonly mostBlocks = MOST_BLOCKS,
  ) {}

  /** Show a text: the one of before with more behind it, or another. */
  update(text: string, growing: boolean): void {
    if (this.whole && !growing && text === this.text) return;
    if (!text.startsWith(this.text) || this.whole) this.keepCommon(text);
    this.text = text;
    this.growing = growing;
    this.whole = !growing;
    for (const block of this.splitter.advance(text, !growing)) this.found.push(...this.pieces(block));
    schedule(this);
  }

  /** Stop all work on the text. */
  end(): void {
    unschedule(this);
  }

  work(until: number): boolean {
    while (this.shown < this.found.length) {
      this.finish(this.found[this.shown++]!);
      if (performance.now() >= until) return true;
    }
    this.found = [];
    this.shown = 0;
    if (this.growing) return this.showTail();
    this.dropTail();
    this.resolveLinks();
    this.onWhole();
    return false;
  }

  /** A block that is too long to be read as Markdown becomes several blocks of plain text. */
  private pieces(block: Block): Block[] {
    const { start, end } = block;
    if (end - start <= LONGEST_BLOCK || startsFence(this.text, start)) return [block];
    const pieces: Block[] = [];
    for (let at = start; at < end; at = pieces.at(-1)!.end) pieces.push({ start: at, end: endOfPiece(this.text, at, end), plain: true });
    return pieces;
  }

  /** Keep the elements that another text begins with too, and forget the others. */
  private keepCommon(text: string): void {
    const common = commonLength(this.text, text);
    // The last common block may go on differently.
    let kept = this.ends.findIndex((end) => end >= common);
    if (kept < 0) kept = this.ends.length;
    for (const element of this.elements.splice(kept)) element.remove();
    this.ends.length = kept;
    this.dropTail();
    this.found = [];
    this.shown = 0;
    this.splitter = new BlockSplitter(this.ends[kept - 1] ?? 0);
  }

  private finish({ start, end, plain }: Block): void {
    const source = this.text.slice(start, end);
    if (this.elements.length >= this.mostBlocks) {
      this.dropTail();
      appendPlainly(this.elements.at(-1)!, source);
      this.ends[this.ends.length - 1] = end;
      return;
    }
    const element = this.tail ?? this.newBlock();
    if (plain) element.replaceChildren(plainText(source));
    else if (!this.finishOpenCode(source)) element.replaceChildren(this.block(source));
    this.tail = null;
    this.openCode = null;
    this.tailEnd = -1;
    this.elements.push(element);
    this.ends.push(end);
    if (this.elements.length === MANY_BLOCKS) this.host.classList.add("many-blocks");
    if (!plain) finishLater(element);
  }

  /** Keep the element of code that has grown here: a reader may have selected or scrolled in it. */
  private finishOpenCode(source: string): boolean {
    const code = this.openCode && fencedCode(source);
    if (!code || withVisibleMarks(code.code) !== code.code) return false;
    const shown = this.openCode!.figure.code;
    if (shown.textContent !== code.code) {
      shown.textContent = "";
      appendCode(shown, code.code);
    }
    return true;
  }

  private newBlock(): HTMLElement {
    const element = document.createElement("div");
    element.className = "block";
    element.dir = "auto";
    this.host.append(element);
    return element;
  }

  private block(source: string, links = this.links): Node {
    const code = fencedCode(source);
    if (code) return codeFigure(code.language, code.code).element;
    const markup = html(source, links);
    if (markup === null) return plainText(source);
    const elements = textElements(markup);
    this.level = finishElements(elements, this.level);
    return elements;
  }

  /** Render the last block of a growing text. Says whether that has to wait for a later frame. */
  private showTail(): boolean {
    const { tail: start, openFence } = this.splitter;
    if (this.tailEnd === this.text.length || start >= this.text.length) return false;
    if (openFence) {
      this.showOpenCode(openFence.language, openFence.bodyStart);
      return false;
    }
    const began = performance.now();
    if (began - this.tailAt < this.tailCost / SHARE) return true;
    const source = this.text.slice(start);
    this.tail ??= this.newBlock();
    if (source.length > LONGEST_GROWING) this.growPlainly(this.tail, start);
    else this.showGrowing(this.tail, source);
    this.tailEnd = this.text.length;
    this.tailAt = began;
    this.tailCost = performance.now() - began;
    return false;
  }

  private showGrowing(tail: HTMLElement, source: string): void {
    const { level } = this;
    // The block will be rendered again: neither its headings nor its half-written links are there to stay.
    tail.replaceChildren(this.block(source, Object.create(this.links) as Links));
    this.level = level;
  }

  /** Code only gets longer at its end: nothing is rendered again. */
  private showOpenCode(language: string, from: number): void {
    if (this.openCode?.from !== from) {
      this.tail ??= this.newBlock();
      const figure = codeFigure(language, "");
      this.tail.replaceChildren(figure.element);
      this.openCode = { figure, from, until: from };
    }
    const open = this.openCode;
    appendCode(open.figure.code, withVisibleMarks(this.text.slice(open.until)));
    open.until = this.tailEnd = this.text.length;
  }

  private growPlainly(tail: HTMLElement, start: number): void {
    const plain = tail.firstElementChild?.className === "plain" && this.tailEnd > start;
    if (plain) appendPlainly(tail, this.text.slice(this.tailEnd));
    else tail.replaceChildren(plainText(this.text.slice(start)));
  }

  private dropTail(): void {
    this.tail?.remove();
    this.tail = null;
    this.openCode = null;
    this.tailEnd = -1;
  }

  /** Render those blocks again that refer to links which only later text defines. */
  private resolveLinks(): void {
    if (Object.keys(this.links).length === 0) return;
    this.elements.forEach((element, at) => {
      if (!/\]\s?\[/.test(element.textContent ?? "")) return;
      const source = this.text.slice(this.ends[at - 1] ?? 0, this.ends[at]);
      element.replaceChildren(this.block(source));
      finishLater(element);
    });
  }
}

/** How many characters two texts have in common at their beginning. */
function commonLength(one: string, other: string): number {
  const most = Math.min(one.length, other.length);
  for (let at = 0; at < most; at++) if (one.charCodeAt(at) !== other.charCodeAt(at)) return at;
  return most;
}
