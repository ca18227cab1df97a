/** Asks for answers: the first time, again, and of the aggregator alone. One answer is written at a time. */
import { signal } from "@preact/signals";
import { learnTokens } from "../answer/phase_words.ts";
import { newAnswer } from "../answer/reduce.ts";
import { messagesOf, shownVersion, type Turn } from "../answer/turns.ts";
import type { Answer, Proposal } from "../answer/types.ts";
import { chat, chosenVersions, putAnswer, saveChat, turns } from "./chats.ts";
import { newId } from "./ids.ts";
import { chosenModel } from "./server.ts";
import { Work, type Fusing, type Task } from "./work.ts";

/** The one answer that is being written; null if there is none. */
export const running = signal<Work | null>(null);

export function ask(question: string): void {
  const answer = begin(chosenModel.peek(), question);
  run({ model: answer.model, messages: messagesOf(turns.peek(), question, chosenVersions.peek()) }, answer);
}

/** Ask the question of an answer again. An answer of which nothing came is replaced. */
export function retry(answer: Answer): void {
  const { id, question, retryOf } = answer;
  const messages = messagesOf(turnsBefore(answer), question, chosenVersions.peek());
  const model = answer.error?.code === "model_not_found" ? chosenModel.peek() : answer.model;
  const isEmpty = !answer.text && answer.proposals.every(({ text }) => !text);
  const replaced = { ...begin(model, question, retryOf === undefined ? {} : { retryOf }), id };
  run({ model, messages }, isEmpty ? replaced : begin(model, question, { retryOf: id }));
}

/** What to do with each proposal of an answer that is fused again, and how the new answer is made from them. */
export interface FusePlan extends Fusing {
  keep: Proposal[];
  askAgain: Proposal[];
}

/** Have the aggregator write anew, over proposals that are there. Members in `askAgain` propose anew before. */
export function fuseAgain(source: Answer, plan: FusePlan): void {
  const messages = messagesOf(turnsBefore(source), source.question, chosenVersions.peek());
  const order = (proposal: Proposal) =>
    source.proposals.findIndex((p) => p.layer === proposal.layer && p.place === proposal.place);
  const used = [...plan.keep, ...plan.askAgain].sort((a, b) => order(a) - order(b));
  const unknown = { firstS: null, engineS: null, startedS: 0, cause: null, detail: null };
  const proposals = used.map((proposal, place): Proposal => {
    const isAsked = plan.askAgain.includes(proposal);
    // A proposal that is there took no time of the new answer.
    const kept = { phase: "done", seconds: 0 } as const;
    const fresh = { phase: "waits", seconds: null, text: "", tokens: null } as const;
    const { textS: _, ...known } = proposal;
    return { ...known, ...unknown, ...(isAsked ? fresh : kept), layer: 1, place };
  });
  const { aggregator, method } = plan;
  const answer = begin(source.model, source.question, { fusedFrom: source.id, proposals });
  run({ model: source.model, messages, fusing: { aggregator, method } }, answer);
}

function begin(model: string, question: string, more: Partial<Answer> = {}): Answer {
  return newAnswer({ id: newId(), model, question, askedAt: Date.now() }, more);
}

function turnsBefore(answer: Answer): Turn[] {
  const all = turns.peek();
  const at = all.findIndex((turn) => turn.versions.some(({ id }) => id === answer.id));
  return at < 0 ? all : all.slice(0, at);
}

function run(task: Task, first: Answer): void {
  if (running.peek()) return;
  const work = new Work(chat.peek().id, first);
  running.value = work;
  putAnswer(work.chatId, first);
  saveChat(work.chatId);
  void work.run(task).then(() => {
    running.value = null;
    learn(work.answer.peek());
    saveChat(work.chatId);
  });
}

/** Learn from an answer how long the tokens of its models are. A model that thought wrote more than its text. */
function learn({ proposals, text, reasoning, answeredBy, completionTokens }: Answer): void {
  for (const { model, text, tokens, textS } of proposals) if (textS === undefined) learnTokens(model, text, tokens);
  if (answeredBy && !reasoning) learnTokens(answeredBy, text, completionTokens);
}

/** Stop the answer of a chat, if there is one that is being written. */
export function stopIn(chatId: string): void {
  const live = running.peek();
  if (live?.chatId === chatId) live.stop();
}

/** Once a key was typed, ask again what was refused for want of it. */
export function retryRefused(): void {
  const last = turns.peek().at(-1);
  if (!last) return;
  const answer = shownVersion(last, chosenVersions.peek());
  if (answer.error?.status === 401 && !answer.text) retry(answer);
}
