/** Elements that a text is shown with, beside those that come from its HTML. */
import { withVisibleMarks, withVisibleOverrides } from "./bidi.ts";
import { copyText } from "./copy.ts";

/** Characters of one piece of plain text. A browser lays out only the pieces that are in sight. */
const PIECE = 8_000;
/** A piece of code has whole lines, unless they are as long as this. */
const LONGEST_PIECE = 32_000;
const SAYS_COPIED_MS = 1_500;

/** A block of code as a figure: its language, a button that copies, and the code. */
export interface CodeFigure {
  element: HTMLElement;
  code: HTMLElement;
}

/**
 * A figure for code.
 *
 * @param language the name behind the fence; empty if there is none
 * @param text the code
 */
export function codeFigure(language: string, text: string): CodeFigure {
  const code = document.createElement("code");
  const shown = withVisibleMarks(text);
  appendCode(code, shown);
  if (language) code.dataset["language"] = language;
  const pre = document.createElement("pre");
  pre.tabIndex = 0; // so that the keyboard can scroll it
  pre.setAttribute("role", "group");
  pre.setAttribute("aria-label", language ? `Code in ${language}` : "Code");
  pre.append(code);
  const name = document.createElement("span");
  name.textContent = language;
  // Only a code with marks of direction differs from what is shown; all others are not kept twice.
  const button = copyButton(shown === text ? () => code.textContent ?? "" : () => text);
  const head = document.createElement("div");
  head.className = "code-head";
  head.append(name, button);
  const element = document.createElement("div");
  element.className = "code";
  element.dir = "ltr";
  element.append(head, pre);
  return { element, code };
}

/**
 * Adds code behind what an element has: in pieces of whole lines, because a browser lays out the whole of a piece
 * when its text changes. The first piece is a bare text.
 */
export function appendCode(code: HTMLElement, text: string): void {
  for (let at = 0; at < text.length; ) {
    const last = code.lastChild;
    const node = last instanceof Text ? last : last?.firstChild;
    if (node instanceof Text && !isFull(node)) {
      const end = endOfCode(text, at, PIECE - node.length);
      node.appendData(text.slice(at, end));
      at = end;
    } else {
      code.append(last ? newPiece() : document.createTextNode(""));
    }
  }
}

function isFull(node: Text): boolean {
  return node.length >= LONGEST_PIECE || (node.length >= PIECE && node.data.endsWith("\n"));
}

function newPiece(): HTMLElement {
  const piece = document.createElement("span");
  piece.className = "piece";
  piece.append("");
  return piece;
}

/** Where in a text a piece with room for some characters ends: behind the line that fills the piece. */
function endOfCode(text: string, start: number, room: number): number {
  if (text.length - start <= room) return text.length;
  const full = start + Math.max(0, room - 1);
  const most = Math.min(text.length, start + LONGEST_PIECE);
  const newline = text.slice(full, most).indexOf("\n");
  return newline < 0 ? behindCharacter(text, most) : full + newline + 1;
}

function copyButton(text: () => string): HTMLButtonElement {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "code-copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", "Copy the code");
  button.addEventListener("click", () => {
    void copyText(text()).then((copied) => {
      button.textContent = copied ? "Copied" : "Not copied";
      setTimeout(() => {
        button.textContent = "Copy";
      }, SAYS_COPIED_MS);
    });
  });
  return button;
}

/** Plain text in pieces, with its line breaks. */
export function plainText(text: string): DocumentFragment {
  const fragment = document.createDocumentFragment();
  for (let at = 0; at < text.length; ) {
    const end = endOfPiece(text, at, text.length);
    const piece = document.createElement("div");
    piece.className = "plain";
    piece.textContent = withVisibleOverrides(text.slice(at, end));
    fragment.append(piece);
    at = end;
  }
  return fragment;
}

/** Adds plain text behind what an element has: to its last piece while that is short, else in new pieces. */
export function appendPlainly(element: HTMLElement, text: string): void {
  const piece = element.lastElementChild;
  const written = piece?.className === "plain" ? piece.lastChild : null;
  if (written instanceof Text && written.length + text.length <= PIECE) written.appendData(withVisibleOverrides(text));
  else element.append(plainText(text));
}

/** Where a piece of plain text ends: behind a line if one ends in its second half, and never inside of a character. */
export function endOfPiece(text: string, start: number, whole: number): number {
  const most = start + PIECE;
  if (most >= whole) return whole;
  // Only this half is searched: in a text of one line, each piece would need a search through all text before it.
  const half = start + PIECE / 2;
  const newline = text.slice(half, most).lastIndexOf("\n");
  if (newline >= 0) return half + newline + 1;
  return behindCharacter(text, most);
}

/** An offset, or the next offset if this one is inside a character. */
function behindCharacter(text: string, at: number): number {
  const code = text.charCodeAt(at);
  return code >= 0xdc00 && code <= 0xdfff ? at + 1 : at;
}

/**
 * Adds to sanitised elements what HTML does not bring: figures around code, tables that scroll, and headings none of
 * which skips a level.
 *
 * @param heading the level of the last heading before
 * Returns: the level of the last heading.
 */
export function finishElements(parent: ParentNode, heading: number): number {
  let level = heading;
  for (const found of parent.querySelectorAll("h3, h4, h5, h6")) {
    const wanted = Number(found.localName.slice(1));
    level = Math.min(wanted, level + 1);
    if (level === wanted) continue;
    const allowed = document.createElement(`h${level}`);
    allowed.append(...found.childNodes);
    found.replaceWith(allowed);
  }
  for (const pre of parent.querySelectorAll("pre")) {
    const code = pre.querySelector("code");
    const language = /(?:^| )language-(\S+)/.exec(code?.className ?? "")?.[1] ?? "";
    pre.replaceWith(codeFigure(language, (pre.textContent ?? "").replace(/\n$/, "")).element);
  }
  for (const table of parent.querySelectorAll("table")) {
    const frame = document.createElement("div");
    frame.className = "table";
    frame.tabIndex = 0;
    frame.setAttribute("role", "group");
    frame.setAttribute("aria-label", "Table");
    table.replaceWith(frame);
    frame.append(table);
  }
  return level;
}
