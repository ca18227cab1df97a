/**
 * When the calls of an answer waited, read and wrote, and when the mixture's limits took hold: plain data for the
 * drawing and for the table. All times are seconds since the mixture began to work on the request.
 */
import { decisionWords, isNotNeeded } from "../answer/method_words.ts";
import type { Answer, Proposal, Stage } from "../answer/types.ts";

/**
 * What a call did for a while. A call that has no first token yet `waits or reads`, because the server tells how
 * long an engine worked only at the end. A call whose first token is unknown `reads and writes`. Only the call of a
 * proposal `thinks`, while it writes the reasoning before its text.
 */
export type Doing = "waits" | "reads" | "waits or reads" | "thinks" | "writes" | "reads and writes";

export interface Span {
  doing: Doing;
  from: number;
  to: number;
}

/** One call: a proposal, or the writing of the answer. */
export interface Call {
  /** What the row is called: `proposal 1`, `proposal 1 of layer 2`, `answer`. */
  title: string;
  model: string;
  spans: Span[];
  startedS: number;
  /** When it ended; null while it goes on. */
  endedS: number | null;
  tokens: number | null;
  /** How it ended, or what it does now, in words. */
  outcome: string;
  bad: boolean;
}

/** A moment at which a limit of the recipe takes hold. */
export interface Mark {
  words: string;
  atS: number;
  /** Whether this is still to come, or would have come after the end. */
  ahead: boolean;
  kind: "quorum" | "grace" | "deadline";
}

/** The limits of a recipe, as `/v1/state` tells them. */
export interface Limits {
  quorum: number;
  grace_s: number | null;
  layer_deadline_s: number;
  deadline_s: number;
}

/**
 * The calls of an answer, layer by layer.
 *
 * @param nowS the time now, while the answer is written; null if that is unknown or the answer has ended
 */
export function calls(answer: Answer, nowS: number | null): Call[] {
  const until = isRunning(answer) ? nowS : (answer.totalS ?? nowS);
  const layers = new Set(answer.proposals.map((proposal) => proposal.layer)).size;
  const proposals = [...answer.proposals].sort((a, b) => a.layer - b.layer || a.place - b.place);
  const rows = proposals.map((proposal) => proposalCall(answer, proposal, layers > 1, until));
  for (const stage of answer.stages) {
    if (!stage.name.startsWith("layer")) rows.push(answerCall(answer, stage, until));
  }
  return rows;
}

/** Whether an answer is being written. */
export function isRunning({ phase }: Answer): boolean {
  return phase === "waits" || phase === "proposes" || phase === "aggregates";
}

function proposalCall(answer: Answer, proposal: Proposal, manyLayers: boolean, untilS: number | null): Call {
  const { layer, place, model, startedS, firstS, textS, seconds, engineS, tokens } = proposal;
  const lasted = seconds ?? (untilS === null ? (firstS ?? 0) : Math.max(0, untilS - startedS));
  const waited = engineS === null ? null : Math.max(0, lasted - engineS);
  return {
    title: `proposal ${place + 1}${manyLayers ? ` of layer ${layer}` : ""}`,
    model,
    spans: shifted(startedS, spans(lasted, firstS, waited, textS)),
    startedS,
    endedS: seconds === null ? null : startedS + seconds,
    tokens,
    ...(seconds === null && !isRunning(answer) ? { outcome: "stopped", bad: true } : proposalOutcome(proposal)),
  };
}

function proposalOutcome(proposal: Proposal): { outcome: string; bad: boolean } {
  const { phase, cause, detail } = proposal;
  if (isNotNeeded(proposal)) return { outcome: "not needed", bad: false };
  if (phase === "done") return { outcome: "done", bad: false };
  if (phase === "thinks" || phase === "writes") return { outcome: phase, bad: false };
  if (phase === "waits") return { outcome: "waits or reads", bad: false };
  return { outcome: cause === "late" ? "dropped: late" : `dropped: ${detail ?? cause ?? "no cause is known"}`, bad: true };
}

function answerCall(answer: Answer, stage: Stage, untilS: number | null): Call {
  const lasted = stage.seconds ?? (untilS === null ? (stage.firstS ?? 0) : Math.max(0, untilS - stage.startedS));
  // After a fallback the first token's time counts from the fallback's own call, whose beginning is not told.
  const first = answer.fallback === null ? stage.firstS : null;
  const ended = stage.seconds !== null;
  if (answer.chosen && answer.fallback === null) return decisionCall(answer, stage, lasted, ended);
  return {
    title: "answer",
    model: answer.answeredBy ?? stage.models[0] ?? answer.model,
    spans: shifted(stage.startedS, ended && first === null ? whole(lasted) : spans(lasted, first, null)),
    startedS: stage.startedS,
    endedS: ended ? stage.startedS + lasted : null,
    tokens: answer.completionTokens,
    ...answerOutcome(answer, ended, first),
  };
}

/** The stage in which no model wrote: a proposal was taken as the answer, at once or after a model picked it. */
function decisionCall(answer: Answer, stage: Stage, lasted: number, ended: boolean): Call {
  const isPick = answer.method === "select";
  return {
    title: isPick ? "pick" : "decision",
    model: (isPick ? stage.models[0] : answer.answeredBy) ?? answer.model,
    spans: isPick ? shifted(stage.startedS, spans(lasted, null, null)) : [],
    startedS: stage.startedS,
    endedS: ended ? stage.startedS + lasted : null,
    tokens: null,
    outcome: decisionWords(answer),
    bad: false,
  };
}

function answerOutcome(answer: Answer, ended: boolean, first: number | null): { outcome: string; bad: boolean } {
  if (answer.error) return { outcome: "failed", bad: true };
  if (!ended && answer.phase === "stopped") return { outcome: "stopped", bad: true };
  if (!ended) return { outcome: first === null && !answer.text ? "waits or reads" : "writes", bad: false };
  if (answer.cut) return { outcome: "cut by the deadline", bad: true };
  if (answer.fallback === "aggregator") return { outcome: "done by a fallback", bad: true };
  if (answer.fallback === "reference") return { outcome: "no aggregator answered: a proposal is the answer", bad: true };
  return { outcome: "done", bad: false };
}

/**
 * What a call did, from its start.
 *
 * @param waited null as long as nobody knows how long the engine worked
 * @param textS see `Proposal.textS`
 */
function spans(lasted: number, first: number | null, waited: number | null, textS?: number | null): Span[] {
  const begins = Math.min(first ?? lasted, lasted);
  const found: Span[] = [];
  if (waited === null) {
    found.push({ doing: "waits or reads", from: 0, to: begins });
  } else if (first === null) {
    found.push({ doing: "waits", from: 0, to: waited }, { doing: "reads and writes", from: waited, to: lasted });
  } else {
    const reads = Math.min(waited, begins);
    found.push({ doing: "waits", from: 0, to: reads }, { doing: "reads", from: reads, to: begins });
  }
  if (first !== null) {
    // The two times may come from two clocks, the browser's and the server's.
    const text = textS === undefined ? begins : Math.min(Math.max(begins, textS ?? lasted), lasted);
    found.push({ doing: "thinks", from: begins, to: text }, { doing: "writes", from: text, to: lasted });
  }
  return found.filter(({ from, to }) => to > from);
}

function whole(lasted: number): Span[] {
  return lasted > 0 ? [{ doing: "reads and writes", from: 0, to: lasted }] : [];
}

function shifted(by: number, list: Span[]): Span[] {
  return list.map(({ doing, from, to }) => ({ doing, from: from + by, to: to + by }));
}

/** When the limits of the recipe took hold, or will, in the order of time. */
export function marks(answer: Answer, limits: Limits | null, endS: number): Mark[] {
  if (limits === null) return [];
  const found: Mark[] = [];
  const layers = [...new Set(answer.proposals.map((proposal) => proposal.layer))].sort((a, b) => a - b);
  const add = (kind: Mark["kind"], words: string, atS: number): void => {
    found.push({ kind, words, atS, ahead: atS > endS });
  };
  for (const layer of layers) {
    const own = answer.proposals.filter((proposal) => proposal.layer === layer);
    const of = layers.length > 1 ? ` of layer ${layer}` : "";
    const needed = Math.min(limits.quorum, own.length);
    const done = own
      .filter((proposal) => proposal.phase === "done" && proposal.seconds !== null)
      .map((proposal) => proposal.startedS + proposal.seconds!)
      .sort((a, b) => a - b);
    const quorumAt = done[needed - 1];
    if (quorumAt !== undefined) {
      add("quorum", `quorum${of}: ${needed} of ${own.length} proposals`, quorumAt);
      if (limits.grace_s !== null && needed < own.length) add("grace", `end of the grace${of}`, quorumAt + limits.grace_s);
    }
    add("deadline", `deadline of ${layers.length > 1 ? `layer ${layer}` : "the layer"}`, own[0]!.startedS + limits.layer_deadline_s);
  }
  add("deadline", "deadline of the answer", limits.deadline_s);
  return found.sort((a, b) => a.atS - b.atS);
}

/** When the last thing that is known happened. */
export function endOf(answer: Answer, rows: Call[], nowS: number | null): number {
  const known = rows.flatMap((row) => [row.startedS, row.endedS ?? 0, ...row.spans.map((span) => span.to)]);
  return Math.max(0, ...known, answer.totalS ?? 0, isRunning(answer) ? (nowS ?? 0) : 0);
}

/** Where the axis has its lines: at most six, at round numbers. */
export function ticks(lengthS: number): number[] {
  if (lengthS <= 0) return [0];
  const rough = lengthS / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough)!;
  const found: number[] = [];
  for (let at = 0; at * step <= lengthS * 1.0001; at++) found.push(Number((at * step).toPrecision(6)));
  return found;
}
