/** How an answer came about, in words: docs/methods.md describes the methods. Pure. */
import { chosenOf } from "./reduce.ts";
import { sentence } from "./sentence.ts";
import type { Answer, Method, Proposal } from "./types.ts";

/** The cause of a proposal that nobody waited for, because the answer was there before. Nothing is missing then. */
const NOT_NEEDED = "not_needed";

/** What is said before the proposal that is the answer. */
const TAKEN: Partial<Record<Method, string>> = {
  select: "Picked",
  vote: "A vote chose",
  agreement: "Agreed on",
  first: "The first model was sure, and no other was asked",
};

/** What the page calls each method. */
const NAMES: Record<Method, string> = {
  merge: "merge: a model wrote the answer from the proposals",
  select: "select: a model picked one of the proposals",
  vote: "vote: the proposals voted",
  agreement: "exit: enough proposals agreed",
  first: "first: the best model was asked alone, and was sure",
  stand_in: "stand-in: a proposal stands in, because no model wrote or picked",
  direct: "direct: one model was asked by name",
};

/** Whether a proposal was not needed. It is no failure, as a dropped proposal is. */
export function isNotNeeded({ phase, cause }: Proposal): boolean {
  return phase === "dropped" && cause === NOT_NEEDED;
}

/** Whether a proposal is the answer, as it stands. */
export function isChosen(proposal: Proposal, { chosen }: Answer): boolean {
  return chosen !== undefined && proposal.layer === chosen.layer && proposal.place === chosen.place;
}

/** `proposal 2 of 3`, with its layer where there are several. */
export function placeWords({ layer, place }: Proposal, { proposals }: Answer): string {
  const own = proposals.filter((each) => each.layer === layer).length;
  const of = own < proposals.length ? ` of layer ${layer}` : "";
  return `proposal ${place + 1} of ${own}${of}`;
}

/** How the answer came about, in a sentence; null where it is a plain merge, or where that is not known yet. */
export function methodWords(answer: Answer): string | null {
  const { method, why } = answer;
  if (method === undefined || method === "direct") return null;
  const because = why ? `, because ${ended(why)}` : ".";
  if (method === "merge") return why ? `Merged${because}` : null;
  const chosen = chosenOf(answer);
  if (method === "stand_in") return chosen && why ? `${capital(why)}: this is ${standing(chosen, answer)}.` : null;
  if (!chosen) return why ? sentence(why) : null;
  return `${TAKEN[method] ?? "Taken"}: ${placeWords(chosen, answer)}, by ${chosen.model}${because}`;
}

function standing(chosen: Proposal, answer: Answer): string {
  return `${placeWords(chosen, answer)}, by ${chosen.model}, as it stands`;
}

/** The name of the method with what it does, for the panel "Why"; null where no method is known. */
export function methodName({ method }: Answer): string | null {
  return method === undefined ? null : (NAMES[method] ?? method);
}

/** How the answer was decided, in a few words: for a row of the times. */
export function decisionWords(answer: Answer): string {
  const chosen = chosenOf(answer);
  const which = chosen ? placeWords(chosen, answer) : "a proposal";
  const how: Partial<Record<Method, string>> = { select: "a pick of", vote: "a vote for", agreement: "an agreement on" };
  return `${(answer.method && how[answer.method]) ?? "it took"} ${which}`;
}

function ended(words: string): string {
  return /[.!?]$/.test(words) ? words : `${words}.`;
}

function capital(words: string): string {
  return words.charAt(0).toUpperCase() + words.slice(1);
}
