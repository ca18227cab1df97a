/** Keys that work everywhere on the page. */
import { shownVersion } from "../answer/turns.ts";
import { running } from "../model/asking.ts";
import { chosenVersions, newChat, turns } from "../model/chats.ts";
import { COMPOSER } from "./composer.tsx";
import { enlarged, isCardOpen, isChatsOpen, isWide, openDialog, tab } from "./ui.ts";

export function startShortcuts(): void {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing) return;
    if (!document.querySelector("dialog[open]") && act(event)) event.preventDefault();
  });
}

/** Do what a key says; whether it said anything. */
function act(event: KeyboardEvent): boolean {
  const { key, code, altKey, shiftKey } = event;
  const isCommand = event.ctrlKey || event.metaKey;
  if (key === "Escape") return escape();
  if (key === "F6") return moveRegion(shiftKey ? -1 : 1);
  if (isCommand && !altKey && key.toLowerCase() === "k") {
    newChat();
    return true;
  }
  const digit = /^Digit([1-9])$/.exec(code)?.[1];
  if (altKey && !isCommand && digit) return enlarge(Number(digit) - 1);
  if ((isCommand && key === "/") || (key === "?" && !isTyping(event.target))) {
    openDialog("help");
    return true;
  }
  return false;
}

function escape(): boolean {
  const live = running.peek();
  if (live) {
    live.stop();
    return true;
  }
  const isCovered = isCardOpen.peek() && !isWide.peek();
  if (!isChatsOpen.peek() && !isCovered) return false;
  isChatsOpen.value = false;
  if (isCovered) isCardOpen.value = false;
  document.getElementById(COMPOSER)?.focus();
  return true;
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.matches("input, textarea, select");
}

/** Make a column of the last turn large, or small again. */
function enlarge(index: number): boolean {
  const last = turns.peek().at(-1);
  const answer = last && shownVersion(last, chosenVersions.peek());
  const live = running.peek()?.answer.peek();
  const proposals = live && live.id === answer?.id ? live.proposals : answer?.proposals;
  if (!answer || !proposals || index >= proposals.length) return false;
  if (!isWide.peek()) {
    tab.value = index;
    return true;
  }
  const isSame = enlarged.peek()?.answerId === answer.id && enlarged.peek()?.index === index;
  enlarged.value = isSame ? null : { answerId: answer.id, index };
  return true;
}

/** Move the focus to the next region that is there. */
function moveRegion(steps: number): boolean {
  const regions = [...document.querySelectorAll<HTMLElement>("[data-region]")];
  const at = regions.findIndex((region) => region.contains(document.activeElement));
  const next = regions[(at + steps + regions.length) % regions.length];
  const field = next?.querySelector<HTMLElement>("textarea");
  (field ?? next)?.focus();
  return true;
}
