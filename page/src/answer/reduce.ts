/**
 * From the server's chunks to an `Answer`. Everything here is pure: an answer that was given out never
 * changes, and a proposal without news is the same object as before, so that its column is not drawn again.
 */
import type { Chunk, MoaEvent, StageStarted, Summary } from "./chunks.ts";
import type { Answer, Proposal, Reference, Stage } from "./types.ts";

type Begin = Pick<Answer, "id" | "model" | "question" | "askedAt">;

/** An answer of which nothing has come yet. */
export function newAnswer(begin: Begin, more: Partial<Answer> = {}): Answer {
  return {
    phase: "waits",
    proposals: [],
    stages: [],
    text: "",
    reasoning: "",
    answeredBy: null,
    fallback: null,
    cut: false,
    degraded: false,
    missing: [],
    trimmed: [],
    retried: [],
    seed: null,
    finishReason: null,
    promptTokens: null,
    completionTokens: null,
    allTokens: null,
    totalS: null,
    fusedFrom: null,
    error: null,
    ...begin,
    ...more,
  };
}

/** The number of a layer by the name of its stage; 0 for the stages that write the answer. */
export function layerOf(stage: string): number {
  const found = /^layer (\d+)$/.exec(stage);
  return found ? Number(found[1]) : 0;
}

/** The proposal that is the answer; undefined if a model writes the answer, or while that is not decided. */
export function chosenOf({ chosen, proposals }: Answer): Proposal | undefined {
  return chosen && proposals.find(({ layer, place }) => layer === chosen.layer && place === chosen.place);
}

/** The model that writes the answer, as far as that is known: the first that has not failed; null before. */
export function writerOf(answer: Answer): string | null {
  const { answeredBy, stages, missing } = answer;
  const tried = stages.findLast(({ name }) => layerOf(name) === 0)?.models ?? [];
  const failed = missing.filter(({ layer }) => layer === 0).map(({ model }) => model);
  return answeredBy ?? chosenOf(answer)?.model ?? tried.find((model) => !failed.includes(model)) ?? tried[0] ?? null;
}

/** Whether nothing more will come of an answer. */
export function isOver(answer: Answer): boolean {
  return answer.phase === "done" || answer.phase === "stopped" || answer.phase === "failed";
}

/**
 * The answer after some more chunks.
 *
 * nowS: seconds since the mixture began to work, by this browser's clock; null where nobody knows. They
 * are the times of first tokens until the server tells them exactly.
 */
export function reduce(answer: Answer, chunks: readonly Chunk[], nowS: number | null = null): Answer {
  if (chunks.length === 0) return answer;
  const draft = new Draft(answer);
  for (const chunk of chunks) take(draft, chunk, nowS);
  return draft.answer;
}

/** The answer after its user has stopped it. Proposals that were not whole are dropped. */
export function stopped(answer: Answer, nowS: number | null = null): Answer {
  if (isOver(answer)) return answer;
  const ended = endProposals(answer, "stopped", "You stopped the answer.", nowS);
  return { ...ended, phase: "stopped", totalS: nowS };
}

/** The answer after an error has ended it. */
export function failed(answer: Answer, error: NonNullable<Answer["error"]>, nowS: number | null = null): Answer {
  if (isOver(answer)) return answer;
  const ended = endProposals(answer, "broken_off", "The answer failed before this proposal was whole.", nowS);
  return { ...ended, phase: "failed", error, totalS: nowS };
}

function endProposals(answer: Answer, cause: string, detail: string, nowS: number | null): Answer {
  const proposals = answer.proposals.map((proposal): Proposal => {
    if (proposal.phase === "done" || proposal.phase === "dropped") return proposal;
    const seconds = nowS === null ? null : Math.max(0, nowS - proposal.startedS);
    return { ...proposal, phase: "dropped", cause, detail, seconds };
  });
  return { ...answer, proposals };
}

/** A copy of an answer, in which parts are copied when they change. */
class Draft {
  readonly answer: Answer;
  private readonly changed = new Set<Proposal>();
  private listCopied = false;

  constructor(answer: Answer) {
    this.answer = { ...answer };
  }

  /** A proposal that may be changed; undefined if no such proposal was announced. */
  proposal(where: Reference): Proposal | undefined {
    const found = this.answer.proposals.findIndex((p) => p.layer === where.layer && p.place === where.place);
    const known = this.answer.proposals[found];
    if (!known || this.changed.has(known)) return known;
    const copy = { ...known };
    this.changed.add(copy);
    this.copyList();
    this.answer.proposals[found] = copy;
    return copy;
  }

  addProposals(more: Proposal[]): void {
    this.copyList();
    more.forEach((proposal) => this.changed.add(proposal));
    this.answer.proposals.push(...more);
  }

  private copyList(): void {
    if (!this.listCopied) this.answer.proposals = [...this.answer.proposals];
    this.listCopied = true;
  }
}

function take(draft: Draft, chunk: Chunk, nowS: number | null): void {
  const { answer } = draft;
  if (chunk.error) {
    const { message, code } = chunk.error;
    Object.assign(answer, failed(answer, { message, code, status: null }, nowS));
    return;
  }
  for (const choice of chunk.choices ?? []) {
    const { content, reasoning_content: reasoning } = choice.delta;
    if (content) answer.text += content;
    if (reasoning) answer.reasoning += reasoning;
    if (content || reasoning) begin(answer, nowS);
    if (choice.finish_reason) answer.finishReason = choice.finish_reason;
  }
  if (chunk.moa) takeEvent(draft, chunk.moa, nowS);
  if (chunk.usage) {
    answer.promptTokens = chunk.usage.prompt_tokens;
    answer.completionTokens = chunk.usage.completion_tokens;
    answer.allTokens = chunk.usage.all_calls?.total_tokens ?? null;
  }
}

/** Note that the last stage has written its first token. */
function begin(answer: Answer, nowS: number | null): void {
  const last = answer.stages.at(-1);
  if (!last || last.firstS !== null || layerOf(last.name) > 0 || nowS === null) return;
  answer.stages = [...answer.stages.slice(0, -1), { ...last, firstS: Math.max(0, nowS - last.startedS) }];
}

function takeEvent(draft: Draft, event: MoaEvent, nowS: number | null): void {
  const { answer } = draft;
  switch (event.type) {
    case "stage.started":
      return startStage(draft, event);
    case "proposal.thinks": {
      const proposal = draft.proposal(event);
      if (proposal) Object.assign(proposal, { phase: "thinks", textS: null }, sinceStart(proposal, nowS));
      return;
    }
    case "proposal.delta": {
      const proposal = draft.proposal(event);
      if (proposal) grow(proposal, event.text, nowS);
      return;
    }
    case "proposal.done": {
      const { text, seconds, engine_s: engineS, completion_tokens: tokens } = event;
      const proposal = draft.proposal(event);
      if (!proposal) return;
      const firstS = event.first_s ?? proposal.firstS;
      Object.assign(proposal, { phase: "done", text, seconds, firstS, engineS, tokens });
      return;
    }
    case "proposal.dropped": {
      const { cause, detail, seconds } = event;
      const proposal = draft.proposal(event);
      if (proposal) Object.assign(proposal, { phase: "dropped", cause, detail, seconds });
      return;
    }
    case "aggregator.failed": {
      const { layer, model, cause, detail } = event;
      answer.missing = [...answer.missing, { layer, model, cause, detail }];
      return;
    }
    case "decided": {
      const { method, why, chosen } = event;
      Object.assign(answer, { method, why }, chosen && { chosen });
      return;
    }
    case "trimmed": {
      const { layer, model, tokens_removed } = event;
      answer.trimmed = [...answer.trimmed, { layer, model, tokens_removed }];
      return;
    }
    case "retried": {
      const { layer, model, detail } = event;
      answer.retried = [...answer.retried, { layer, model, detail }];
      return;
    }
    case "stage.done": {
      const { stage, seconds, first_s: firstS } = event;
      answer.stages = answer.stages.map((known) =>
        known.name === stage ? { ...known, seconds, firstS: firstS ?? known.firstS } : known,
      );
      return;
    }
    case "summary":
      return summarise(answer, event);
  }
}

function grow(proposal: Proposal, text: string, nowS: number | null): void {
  proposal.text += text;
  proposal.phase = "writes";
  const { firstS } = sinceStart(proposal, nowS);
  if (proposal.textS === null && nowS !== null) proposal.textS = Math.max(0, nowS - proposal.startedS);
  proposal.firstS = firstS;
}

/** When the first token of a proposal came. If this is not known yet, it came now. */
function sinceStart({ firstS, startedS }: Proposal, nowS: number | null): { firstS: number | null } {
  return { firstS: firstS ?? (nowS === null ? null : Math.max(0, nowS - startedS)) };
}

/** The changes to a proposal while its model is asked by name. `direct` is the model's answer so far. */
export function grownAlone({ textS }: Proposal, direct: Answer, nowS: number): Partial<Proposal> {
  const { text, reasoning } = direct;
  const firstS = direct.stages[0]?.firstS ?? null;
  if (!text) return reasoning ? { phase: "thinks", textS: null, firstS } : {};
  return { phase: "writes", text, firstS, ...(textS === null && { textS: nowS }) };
}

function startStage(draft: Draft, event: StageStarted): void {
  const { stage: name, models, references, at_s: startedS } = event;
  const { answer } = draft;
  answer.stages = [...answer.stages, { name, models, references, startedS, firstS: null, seconds: null }];
  const layer = layerOf(name);
  answer.phase = layer > 0 ? "proposes" : "aggregates";
  if (layer > 0) draft.addProposals(models.map((model, place) => newProposal(layer, place, model, startedS)));
}

function newProposal(layer: number, place: number, model: string, startedS: number): Proposal {
  const unknown = { firstS: null, seconds: null, engineS: null, tokens: null, cause: null, detail: null };
  return { layer, place, model, phase: "waits", text: "", startedS, ...unknown };
}

function summarise(answer: Answer, summary: Summary): void {
  const { answered_by: answeredBy, fallback, cut, degraded, missing, trimmed, retried, seed, method } = summary;
  Object.assign(answer, { answeredBy, fallback, cut, degraded, missing, trimmed, retried, seed, method });
  if (summary.order) answer.order = summary.order;
  // The summary leaves out what there is not, and has the last word: a decision may have come to nothing.
  const { why, chosen } = summary;
  delete answer.why;
  delete answer.chosen;
  Object.assign(answer, why && { why }, chosen && { chosen });
  answer.stages = summary.stages.map((stage): Stage => {
    const known = answer.stages.find(({ name }) => name === stage.stage);
    return {
      name: stage.stage,
      models: known?.models ?? [],
      references: stage.references,
      startedS: stage.at_s,
      firstS: stage.first_s,
      seconds: stage.seconds,
    };
  });
  const ends = answer.stages.map(({ startedS, seconds }) => startedS + (seconds ?? 0));
  answer.totalS = ends.length > 0 ? Math.max(...ends) : null;
  answer.phase = "done";
}
