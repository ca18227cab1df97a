/**
 * What a model is doing, as a column says it: in words, with a sign and a tone. Pure, but for what `learnTokens`
 * learned.
 */
import type { MemberState, ServerState } from "../api/state.ts";
import { isNotNeeded } from "./method_words.ts";
import { layerOf } from "./reduce.ts";
import { seconds } from "./times.ts";
import type { Answer, Proposal } from "./types.ts";

export type Tone = "quiet" | "busy" | "good" | "warn" | "bad";
export type Sign = "waits" | "asleep" | "waking" | "reads" | "thinks" | "writes" | "done" | "late" | "dropped" | "spared";

export interface Words {
  words: string;
  sign: Sign;
  tone: Tone;
  /** Whether a clock runs beside the words. */
  runs: boolean;
}

/** How many characters a token has, where nothing better is known: about right for English. */
const CHARACTERS_OF_TOKEN = 4;
/** Time after the first token from which a rate is worth a word. */
const RATE_AFTER_S = 1;

/** What a call waits for, by the members that run its model. */
type Waiting = { sign: "asleep" | "waking" | "waits" | "reads"; words: string; before: number | null };

const AWAY = ["asleep", "falling asleep"];
const COMING = ["waking", "starting"];
const STOPPED = ["stopped", "stopping", "not started", "absent"];

/** The members of a model: its replicas. */
export function membersOf(state: ServerState | null, model: string): MemberState[] {
  const all = state?.cards.flatMap((card) => card.members) ?? [];
  return all.filter(({ name }) => name.slice(0, name.lastIndexOf("/")) === model);
}

/** What a call of a model without any token waits for. */
export function waitingFor(members: readonly MemberState[]): Waiting {
  const plain = (sign: Waiting["sign"], words: string): Waiting => ({ sign, words, before: null });
  if (members.length === 0) return plain("waits", "waits for its first word");
  const isSome = (states: string[]) => members.some((member) => states.includes(member.state));
  if (isSome(["resident"])) {
    const waiting = Math.min(...members.filter((m) => m.state === "resident").map((m) => m.waiting));
    if (waiting === 0) return plain("reads", "reads the prompt");
    return { sign: "waits", words: "waits", before: waiting - 1 };
  }
  if (isSome(COMING)) return plain("waking", "waking");
  if (isSome(AWAY)) return plain("asleep", "asleep");
  if (isSome(STOPPED)) return plain("asleep", "stopped, has to start");
  return plain("waits", "failed, starts again");
}

/** `waits, 2 before it`, with the least number of calls that was ever seen before it. */
export function waitWords(waiting: Waiting, least: number | null): string {
  if (waiting.before === null) return waiting.words;
  const before = Math.min(waiting.before, least ?? Infinity);
  return before > 0 ? `waits, ${before} before it` : "waits for its turn";
}

/** Tokens per second since the first token, by the server's count or about; null while nobody can tell. */
export function rate(text: string, tokens: number | null, writingS: number, model = ""): number | null {
  if (writingS < (tokens === null ? RATE_AFTER_S : 0.05)) return null;
  return (tokens ?? text.length / (charactersOfToken.get(model) ?? CHARACTERS_OF_TOKEN)) / writingS;
}

/** How many characters the tokens of a model had in the last text that the server counted. */
const charactersOfToken = new Map<string, number>();

/** Note how long a model's tokens are, so that the next rates are closer. Short texts tell too little. */
export function learnTokens(model: string, text: string, tokens: number | null): void {
  if (tokens !== null && tokens >= 20 && text.length > 0) charactersOfToken.set(model, text.length / tokens);
}

function rateWords(perSecond: number | null): string {
  if (perSecond === null) return "";
  return ` ${perSecond < 10 ? perSecond.toFixed(1) : Math.round(perSecond)} tokens/s`;
}

const THINKS: Words = { words: "thinks", sign: "thinks", tone: "busy", runs: true };

/** The words of a proposal. `wait` are the words for a call without any token. */
export function proposalWords(
  proposal: Proposal,
  answer: Answer,
  nowS: number,
  wait: Waiting,
  least: number | null,
): Words {
  switch (proposal.phase) {
    case "waits":
      return { words: waitWords(wait, least), sign: wait.sign, tone: "quiet", runs: true };
    case "thinks":
      return THINKS;
    case "writes": {
      // The text has no thoughts, so the time for thoughts says nothing about how fast the text grows.
      const writingS = nowS - proposal.startedS - (proposal.textS ?? proposal.firstS ?? 0);
      const about = rateWords(rate(proposal.text, null, writingS, proposal.model));
      return { words: about ? `writes about${about}` : "writes", sign: "writes", tone: "busy", runs: true };
    }
    case "done":
      return { words: doneWords(proposal, answer), sign: "done", tone: "good", runs: false };
    case "dropped":
      return droppedWords(proposal);
  }
}

function doneWords({ seconds: took, firstS, tokens, text }: Proposal, answer: Answer): string {
  if (answer.fusedFrom && took === 0) return "kept from the answer before";
  if (took === null) return "done";
  const exact = tokens === null || firstS === null ? null : rate(text, tokens, took - firstS);
  return `done in ${seconds(took)}${exact === null ? "" : `,${rateWords(exact)}`}`;
}

const CAUSES: Record<string, string> = {
  late: "late",
  not_needed: "not needed",
  empty: "dropped: wrote nothing",
  only_reasoning: "dropped: thought and did not answer",
  content_filter: "dropped: a filter stopped it",
  quorum_not_met: "not used: its layer had too few proposals",
  stopped: "stopped",
  broken_off: "broken off",
  engine_error: "dropped: its engine failed",
  engine_unavailable: "dropped: its engine is not there",
  no_replica: "dropped: no replica runs",
  overloaded: "dropped: its queue is full",
  context_length_exceeded: "dropped: the conversation is too long for it",
};

/** Why a model did not contribute, in a few words. */
export function causeWords(cause: string): string {
  return CAUSES[cause] ?? `dropped: ${cause.replaceAll("_", " ")}`;
}

function droppedWords(proposal: Proposal): Words {
  const { cause, seconds: took } = proposal;
  if (isNotNeeded(proposal)) return { words: causeWords(cause!), sign: "spared", tone: "quiet", runs: false };
  const why = causeWords(cause ?? "unknown");
  const when = took === null || took < 0.05 ? "" : ` after ${seconds(took)}`;
  const isLate = cause === "late";
  const tone = cause === "stopped" ? "quiet" : isLate ? "warn" : "bad";
  return { words: `${why}${when}`, sign: isLate ? "late" : "dropped", tone, runs: false };
}

/** The words of whoever writes the answer. */
export function writerWords(answer: Answer, nowS: number, wait: Waiting, least: number | null): Words {
  const stage = answer.stages.findLast(({ name }) => layerOf(name) === 0);
  if (answer.phase === "stopped") return { words: "stopped", sign: "dropped", tone: "quiet", runs: false };
  if (answer.phase === "failed") return { words: "failed", sign: "dropped", tone: "bad", runs: false };
  if (answer.phase === "done" && answer.fallback === "reference") {
    return { words: "stands in for the aggregator", sign: "done", tone: "quiet", runs: false };
  }
  // A proposal that is the answer was not written by this stage: the stage's time says nothing of its rate.
  if (answer.chosen) return { words: "its proposal is the answer", sign: "done", tone: "good", runs: false };
  if (answer.phase === "done") {
    const took = stage?.seconds ?? null;
    const exact =
      took === null || !answer.completionTokens
        ? null
        : rate(answer.text, answer.completionTokens, took - (stage?.firstS ?? 0));
    const first = stage?.firstS == null ? "" : `, first word after ${seconds(stage.firstS)}`;
    return {
      words: `done${took === null ? "" : ` in ${seconds(took)}`}${exact === null ? "" : `,${rateWords(exact)}`}${first}`,
      sign: "done",
      tone: "good",
      runs: false,
    };
  }
  if (!stage) return { words: "waits for the proposals", sign: "waits", tone: "quiet", runs: false };
  if (!answer.text) {
    if (answer.reasoning) return THINKS;
    return { words: waitWords(wait, least), sign: wait.sign, tone: "quiet", runs: true };
  }
  const written = answer.reasoning + answer.text;
  const about = rateWords(rate(written, null, nowS - stage.startedS - (stage.firstS ?? 0), stage.models[0]));
  return { words: about ? `writes about${about}` : "writes", sign: "writes", tone: "busy", runs: true };
}
