/**
 * Why a model waits, in sentences.
 *
 * The keeper of a card gives turns (docs/architecture.md, "Cards, slots and turns"): one member of a slot has the
 * turn, and one engine of a card at a time starts, stops, wakes or falls asleep. A sentence names what a member's
 * calls wait for at this moment.
 */
import type { CardState, MemberState, ServerState } from "../api/state.ts";
import { callsInWords, listInWords, modelsElsewhere, slotsOf, titleOf, waitInWords } from "./members.ts";

export interface Sentence {
  words: string;
  /** Whether something has gone wrong. */
  bad: boolean;
}

/** What an engine does in the states in which it changes its use of the card's memory. */
const STEPS: Record<string, string> = {
  starting: "is starting from disk",
  waking: "is waking",
  "falling asleep": "is falling asleep",
  stopping: "is stopping",
};

/** Sentences about everybody who waits, and about what has failed; one sentence if there is neither. */
export function why(state: ServerState): Sentence[] {
  const sentences = state.cards.flatMap((card) =>
    slotsOf(card).flatMap((slot) => byLongestWait(slot).flatMap((member) => about(member, slot, card))),
  );
  const elsewhere = modelsElsewhere(state);
  const someRun = state.cards.some((card) => card.members.length > 0);
  if (!sentences.some((sentence) => !sentence.bad) && (someRun || elsewhere.length === 0)) sentences.unshift(nobodyWaits(state));
  if (elsewhere.length > 0) sentences.push(notHere(elsewhere));
  return sentences;
}

/** Members of a slot as they will likely get the turn: the longest queue first. */
export function byLongestWait(slot: MemberState[]): MemberState[] {
  return [...slot].sort((a, b) => b.waiting - a.waiting);
}

function about(member: MemberState, slot: MemberState[], card: CardState): Sentence[] {
  const trouble = troubleOf(member);
  if (member.waiting === 0) return trouble ? [trouble] : [];
  if (trouble) return [{ words: `${trouble.words} ${capital(waitInWords(member))}, wait${verbEnd(member)} for it.`, bad: true }];
  return [{ words: `${reason(member, slot, card)}.`, bad: false }];
}

function troubleOf(member: MemberState): Sentence | null {
  const title = titleOf(member);
  if (member.state === "absent") return { words: `${title} has no replica at this moment.`, bad: true };
  if (member.state !== "failed") return null;
  const cause = member.failure ? ` (${member.failure.replace(/\.$/, "")})` : "";
  return { words: `${title} has failed${cause}. It is started again after a while.`, bad: true };
}

function reason(member: MemberState, slot: MemberState[], card: CardState): string {
  const title = titleOf(member);
  const wait = waitInWords(member);
  if (STEPS[member.state] && member.state !== "falling asleep" && member.state !== "stopping") {
    return `${title} ${STEPS[member.state]}: ${wait}`;
  }
  if (member.turn === "closing") return `${title} ends its turn, and its other calls wait for the next turn: ${wait}`;
  if (member.state === "resident" && member.turn === "open") {
    if (member.in_flight === 0) return `${title} is awake and takes the calls that wait: ${wait}`;
    return `${title} is awake and full with ${callsInWords(member.in_flight)}. Others wait for room: ${wait}`;
  }
  const other = obstacle(member, slot, card);
  if (member.state === "not started") return `${title} has not started yet: ${wait}${other ? `; ${other}` : ""}`;
  return `${title} waits for its turn: ${wait}${other ? `; ${other}` : "; its turn is about to begin"}`;
}

/** What keeps a member's turn from beginning; empty if nothing does. */
function obstacle(member: MemberState, slot: MemberState[], card: CardState): string {
  const holder = slot.find((each) => each !== member && each.turn !== "closed");
  if (holder?.turn === "closing") return `${titleOf(holder)} ends its turn with its last ${callsInWords(holder.in_flight)}`;
  if (holder) return `${titleOf(holder)} is awake and has ${holder.in_flight ? callsInWords(holder.in_flight) : "no call now"}`;
  if (STEPS[member.state]) return `${titleOf(member)} ${STEPS[member.state]} after its last turn`;
  const stepping = [...slot, ...card.members].find((each) => each !== member && STEPS[each.state]);
  if (!stepping) return "";
  const first = `${titleOf(stepping)} ${STEPS[stepping.state]}`;
  return slot.includes(stepping) ? first : `${first}, and a card moves one engine at a time`;
}

function nobodyWaits(state: ServerState): Sentence {
  const members = state.cards.flatMap((card) => card.members);
  const busy = members.filter((member) => member.in_flight > 0);
  if (members.length === 0) return { words: "No model runs on a card of this server.", bad: false };
  if (busy.length === 0) return { words: "Nobody waits, and no model has a call.", bad: false };
  const works = busy.map((member) => `${titleOf(member)} has ${callsInWords(member.in_flight)}`);
  return { words: `Nobody waits. ${capital(listInWords(works))}.`, bad: false };
}

function notHere(models: string[]): Sentence {
  const verb = models.length === 1 ? "runs" : "run";
  return {
    words: `${listInWords(models)} ${verb} on no card of this server, so there is no memory and no turn to show.`,
    bad: false,
  };
}

function verbEnd(member: MemberState): string {
  return member.waiting === 1 ? "s" : "";
}

function capital(words: string): string {
  return words.replace(/^[a-z]/, (letter) => letter.toUpperCase());
}
