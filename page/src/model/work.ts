/** The work on one answer, from the request to its end. */
import { computed, signal, type Signal } from "@preact/signals";
import { boundaries } from "../answer/boundaries.ts";
import type { Chunk } from "../answer/chunks.ts";
import { failed, grownAlone, isOver, newAnswer, reduce, stopped } from "../answer/reduce.ts";
import { later } from "../answer/shift.ts";
import type { Answer, Proposal } from "../answer/types.ts";
import type { FuseMethod, Question } from "../api/client.ts";
import { asProblem, Problem } from "../api/problem.ts";
import { announce } from "./announcements.ts";
import { Batches } from "./batches.ts";
import { putAnswer, saveProgress } from "./chats.ts";
import { client, noteProblem } from "./server.ts";

/** Time between two savings of an answer that is being written. It is also saved when the page is left. */
const SAVE_MS = 15_000;
/** Silence after which the page says so. The server gives a sign of life every few seconds. */
const SILENT_MS = 30_000;
/** Time between two ticks of the clocks on the page. */
const TICK_MS = 500;

/** A clock that runs while an answer is written; milliseconds since the page was opened. */
const clockMs = signal(0);

/** When an answer that was refused may be asked for again, by its id; milliseconds since 1970. */
export const retryAt = new Map<string, number>();

/** Which model makes one answer from proposals, and how. An empty text means: as the recipe says. */
export interface Fusing {
  aggregator: string;
  method: FuseMethod | "";
}

/** A question to the mixture, or, with `fusing`, to the aggregator alone, over the proposals that the answer has. */
export type Task = Question & { fusing?: Fusing };

export class Work {
  readonly answer: Signal<Answer>;
  /** Seconds since the mixture began to work, or since the request was sent. */
  readonly nowS = computed(() => Math.max(0, (clockMs.value - this.zeroMs) / 1000));
  /** Seconds for which nothing has come; 0 while that is not worth a word. */
  readonly silentS = computed(() => {
    const silentMs = clockMs.value - this.heardMs;
    return silentMs > SILENT_MS ? silentMs / 1000 : 0;
  });

  private readonly abort = new AbortController();
  private readonly batches = new Batches<Chunk>((chunks) =>
    this.change(reduce(this.answer.peek(), chunks, this.now())),
  );
  private zeroMs = performance.now();
  private heardMs = this.zeroMs;
  private isBegun = false;
  /** Seconds that members took that were asked again before the request itself. */
  private beforeS = 0;

  /**
   * chatId: the chat to which the answer belongs.
   * first: the answer as it is before anything has come.
   */
  constructor(
    readonly chatId: string,
    first: Answer,
  ) {
    this.answer = signal(first);
  }

  stop(): void {
    this.abort.abort();
  }

  /** Do the work. All that can go wrong becomes a part of the answer. */
  async run(task: Task): Promise<void> {
    clockMs.value = this.zeroMs;
    const ticking = setInterval(() => (clockMs.value = performance.now()), TICK_MS);
    const save = () => saveProgress(this.chatId, this.answer.peek());
    const saving = setInterval(save, SAVE_MS);
    document.addEventListener("visibilitychange", save);
    try {
      await client.ask(await this.fused(task), this.abort.signal, (chunks) => this.hear(chunks));
      this.batches.flush();
      if (!isOver(this.answer.peek())) this.change({ ...this.answer.peek(), phase: "done", totalS: this.now() });
    } catch (error) {
      this.batches.flush();
      this.endBy(error);
    } finally {
      clearInterval(ticking);
      clearInterval(saving);
      document.removeEventListener("visibilitychange", save);
      putAnswer(this.chatId, this.answer.peek());
    }
  }

  private now(): number {
    return (performance.now() - this.zeroMs) / 1000;
  }

  private change(next: Answer): void {
    const said = boundaries(this.answer.peek(), next);
    this.answer.value = next;
    announce(said);
  }

  private hear(chunks: Chunk[]): void {
    this.heardMs = performance.now();
    for (const { moa } of chunks) {
      // The start of the first stage that comes tells when the mixture began to work.
      if (this.isBegun || moa?.type !== "stage.started") continue;
      this.isBegun = true;
      this.zeroMs = this.heardMs - (moa.at_s + this.beforeS) * 1000;
    }
    this.batches.add(this.beforeS > 0 ? chunks.map((chunk) => later(chunk, this.beforeS)) : chunks);
  }

  private endBy(error: unknown): void {
    const answer = this.answer.peek();
    if (this.abort.signal.aborted) return this.change(stopped(answer, this.now()));
    this.abort.abort(); // what other members were asked beside the request that failed
    const problem = asProblem(error);
    noteProblem(problem);
    if (problem.retryAfterS !== null) retryAt.set(answer.id, Date.now() + problem.retryAfterS * 1000);
    const { message, code, status } = problem;
    this.change(failed(answer, { message, code, status }, this.now()));
  }

  /** The request of a task. Where it fuses proposals, the members whose proposals wait are asked before. */
  private async fused({ fusing, ...question }: Task): Promise<Question> {
    if (fusing === undefined) return question;
    const waiting = this.answer.peek().proposals.filter((proposal) => proposal.phase === "waits");
    if (waiting.length > 0) {
      this.change({ ...this.answer.peek(), phase: "proposes" });
      await Promise.all(waiting.map((proposal) => this.askAgain(proposal, question)));
      this.beforeS = this.now();
    }
    const proposals = this.answer.peek().proposals.map(({ model, text }) => ({ model, text }));
    const { aggregator, method } = fusing;
    return { ...question, fuse: { proposals, ...(aggregator && { aggregator }), ...(method && { method }) } };
  }

  private async askAgain({ place, model }: Proposal, { messages }: Question): Promise<void> {
    let direct = newAnswer({ id: "", model, question: "", askedAt: 0 });
    const batches = new Batches<Chunk>((chunks) => {
      direct = reduce(direct, chunks, this.now());
      const proposal = this.answer.peek().proposals[place];
      if (proposal) this.changeProposal(place, grownAlone(proposal, direct, this.now()));
    });
    await client.ask({ model, messages }, this.abort.signal, (chunks) => {
      this.heardMs = performance.now();
      batches.add(chunks);
    });
    batches.flush();
    if (direct.error) throw new Problem(direct.error.message, direct.error.code, null);
    const { text, completionTokens: tokens } = direct;
    this.changeProposal(place, { phase: "done", text, seconds: this.now(), tokens });
  }

  private changeProposal(place: number, more: Partial<Proposal>): void {
    const answer = this.answer.peek();
    if (isOver(answer)) return;
    const proposals = answer.proposals.map((proposal) =>
      proposal.place === place ? { ...proposal, ...more } : proposal,
    );
    this.change({ ...answer, proposals });
  }
}
