/** The answer that is being written: asked for, read, stopped, and asked for again. */
import { computed, signal, type ReadonlySignal, type Signal } from "@preact/signals";
import { boundaries } from "../answer/boundaries.ts";
import type { Chunk } from "../answer/chunks.ts";
import { learnTokens } from "../answer/phase_words.ts";
import { failed, isOver, newAnswer, reduce, stopped } from "../answer/reduce.ts";
import { later } from "../answer/shift.ts";
import { messagesOf, shownVersion, type Turn } from "../answer/turns.ts";
import type { Answer, Proposal } from "../answer/types.ts";
import type { Question } from "../api/client.ts";
import { asProblem, Problem } from "../api/problem.ts";
import { announce } from "./announcements.ts";
import { chat, chosenVersions, putAnswer, saveChat, saveProgress, turns } from "./chats.ts";
import { Batches } from "./batches.ts";
import { newId } from "./ids.ts";
import { chosenModel, client, noteProblem } from "./server.ts";

/** Time between two savings of an answer that is being written. It is also saved when the page is left. */
const SAVE_MS = 15_000;
/** Silence after which the page says so. The server gives a sign of life every few seconds. */
const SILENT_MS = 30_000;

export interface Running {
  chatId: string;
  answer: Signal<Answer>;
  /** Seconds since the mixture began to work, or since the request was sent. */
  nowS: ReadonlySignal<number>;
  /** Seconds for which nothing has come; 0 while that is not worth a word. */
  silentS: ReadonlySignal<number>;
  stop: () => void;
}

/** The one answer that is being written; null if there is none. */
export const running = signal<Running | null>(null);

/** A clock that runs while an answer is written; milliseconds since the page was opened. */
const clockMs = signal(0);

/** When an answer that was refused may be asked for again, by its id; milliseconds since 1970. */
export const retryAt = new Map<string, number>();

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

/** What to do with each proposal of an answer that is fused again, and who writes the new answer. */
export interface FusePlan {
  keep: Proposal[];
  askAgain: Proposal[];
  aggregator: string;
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
    return { ...proposal, ...unknown, ...(isAsked ? fresh : kept), layer: 1, place };
  });
  const answer = begin(source.model, source.question, { fusedFrom: source.id, proposals });
  run({ model: source.model, messages, aggregator: plan.aggregator }, answer);
}

function begin(model: string, question: string, more: Partial<Answer> = {}): Answer {
  return newAnswer({ id: newId(), model, question, askedAt: Date.now() }, more);
}

function turnsBefore(answer: Answer): Turn[] {
  const all = turns.peek();
  const at = all.findIndex((turn) => turn.versions.some(({ id }) => id === answer.id));
  return at < 0 ? all : all.slice(0, at);
}

type Task = Question & { aggregator?: string };

function run(task: Task, first: Answer): void {
  if (running.peek()) return;
  const abort = new AbortController();
  const answer = signal(first);
  let zeroMs = performance.now();
  let heardMs = zeroMs;
  let isBegun = false;
  let beforeS = 0; // of asking members again, before the request itself
  const now = () => (performance.now() - zeroMs) / 1000;

  const change = (next: Answer) => {
    const said = boundaries(answer.peek(), next);
    answer.value = next;
    announce(said);
  };
  const batches = new Batches<Chunk>((chunks) => change(reduce(answer.peek(), chunks, now())));
  const hear = (chunks: Chunk[]) => {
    heardMs = performance.now();
    for (const { moa } of chunks) {
      // The start of the first stage that comes tells when the mixture began to work.
      if (isBegun || moa?.type !== "stage.started") continue;
      isBegun = true;
      zeroMs = heardMs - (moa.at_s + beforeS) * 1000;
    }
    batches.add(beforeS > 0 ? chunks.map((chunk) => later(chunk, beforeS)) : chunks);
  };

  clockMs.value = zeroMs;
  const ticking = setInterval(() => (clockMs.value = performance.now()), 500);
  const save = () => saveProgress(chatId, answer.peek());
  const saving = setInterval(save, SAVE_MS);
  document.addEventListener("visibilitychange", save);
  const chatId = chat.peek().id;
  putAnswer(chatId, first);
  running.value = {
    chatId,
    answer,
    nowS: computed(() => Math.max(0, (clockMs.value - zeroMs) / 1000)),
    silentS: computed(() => (clockMs.value - heardMs > SILENT_MS ? (clockMs.value - heardMs) / 1000 : 0)),
    stop: () => abort.abort(),
  };

  const work = async () => {
    try {
      const question = await withFreshProposals(task, answer, change, abort.signal, now);
      if (first.proposals.some(({ phase }) => phase === "waits")) beforeS = now();
      await client.ask(question, abort.signal, hear);
      batches.flush();
      if (!isOver(answer.peek())) change({ ...answer.peek(), phase: "done", totalS: now() });
    } catch (error) {
      batches.flush();
      change(abort.signal.aborted ? stopped(answer.peek(), now()) : refused(answer.peek(), asProblem(error), now()));
    } finally {
      learn(answer.peek());
      clearInterval(ticking);
      clearInterval(saving);
      document.removeEventListener("visibilitychange", save);
      putAnswer(chatId, answer.peek());
      running.value = null;
      saveChat(chatId);
    }
  };
  saveChat(chatId);
  void work();
}

/** Learn from an answer how long the tokens of its models are. A model that thought wrote more than its text. */
function learn({ proposals, text, reasoning, answeredBy, completionTokens }: Answer): void {
  for (const proposal of proposals) learnTokens(proposal.model, proposal.text, proposal.tokens);
  if (answeredBy && !reasoning) learnTokens(answeredBy, text, completionTokens);
}

/** Ask those members anew whose proposals wait, all at once, and give the request that fuses all proposals. */
async function withFreshProposals(
  task: Task,
  answer: Signal<Answer>,
  change: (next: Answer) => void,
  signal: AbortSignal,
  now: () => number,
): Promise<Question> {
  const { aggregator, ...question } = task;
  if (aggregator === undefined) return question;
  const set = (place: number, more: Partial<Proposal>) => {
    const proposals = answer.peek().proposals.map((p) => (p.place === place ? { ...p, ...more } : p));
    change({ ...answer.peek(), proposals });
  };
  const askOne = async ({ place, model }: Proposal) => {
    let direct = newAnswer({ id: "", model, question: "", askedAt: 0 });
    const batches = new Batches<Chunk>((chunks) => {
      direct = reduce(direct, chunks, now());
      if (direct.text) set(place, { phase: "writes", text: direct.text, firstS: direct.stages[0]?.firstS ?? null });
    });
    await client.ask({ model, messages: question.messages }, signal, (chunks) => batches.add(chunks));
    batches.flush();
    if (direct.error) throw new Problem(direct.error.message, direct.error.code, null);
    set(place, { phase: "done", text: direct.text, seconds: now(), tokens: direct.completionTokens });
  };
  const waiting = answer.peek().proposals.filter((proposal) => proposal.phase === "waits");
  if (waiting.length > 0) change({ ...answer.peek(), phase: "proposes" });
  await Promise.all(waiting.map(askOne));
  const proposals = answer.peek().proposals.map(({ model, text }) => ({ model, text }));
  return { ...question, fuse: { proposals, ...(aggregator && { aggregator }) } };
}

function refused(answer: Answer, problem: Problem, nowS: number): Answer {
  noteProblem(problem);
  if (problem.retryAfterS !== null) retryAt.set(answer.id, Date.now() + problem.retryAfterS * 1000);
  const { message, code, status } = problem;
  return failed(answer, { message, code, status }, nowS);
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
