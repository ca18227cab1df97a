/** A chat as a list of turns: one question each, with all answers to the question. Pure. */
import type { Message } from "../api/client.ts";
import type { Answer } from "./types.ts";

/** The answers to one question, in the order in which they were asked for. Never empty. */
export interface Turn {
  /** The id of its first answer. */
  id: string;
  versions: Answer[];
}

/** The turns of a chat: an answer that was retried or fused again stands beside the one before. */
export function turnsOf(answers: readonly Answer[]): Turn[] {
  const turns: Turn[] = [];
  const turnOf = new Map<string, Turn>();
  for (const answer of answers) {
    const before = turnOf.get(answer.retryOf ?? answer.fusedFrom ?? "");
    const turn = before ?? { id: answer.id, versions: [] };
    if (!before) turns.push(turn);
    turn.versions.push(answer);
    turnOf.set(answer.id, turn);
  }
  return turns;
}

/** The version of a turn that is shown: the one that was chosen, or else the last. */
export function shownVersion(turn: Turn, chosen: ReadonlyMap<string, string>): Answer {
  return turn.versions.find(({ id }) => id === chosen.get(turn.id)) ?? turn.versions.at(-1)!;
}

/** The messages of these turns and a new question. Turns without any answer are left out. */
export function messagesOf(turns: readonly Turn[], question: string, chosen: ReadonlyMap<string, string>): Message[] {
  const messages: Message[] = [];
  for (const turn of turns) {
    const { question: asked, text } = shownVersion(turn, chosen);
    if (!text) continue;
    messages.push({ role: "user", content: asked }, { role: "assistant", content: text });
  }
  return [...messages, { role: "user", content: question }];
}
