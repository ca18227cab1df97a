/** What a model is doing, in words, with a sign and a running clock. */
import type { ReadonlySignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { membersOf, proposalWords, waitingFor, writerWords, type Words } from "../answer/phase_words.ts";
import { layerOf, writerOf } from "../answer/reduce.ts";
import { clock } from "../answer/times.ts";
import type { Answer, Proposal } from "../answer/types.ts";
import { state, stateSeenAt } from "../model/server.ts";
import { Icon } from "./icons.tsx";

/** What a call waits for by the last look at the server, if that look is younger than the call. */
function useWaiting(model: string, askedAt: number) {
  const least = useRef<number | null>(null);
  const isKnown = stateSeenAt.value > askedAt;
  const waiting = waitingFor(isKnown ? membersOf(state.value, model) : []);
  if (waiting.before !== null) least.current = Math.min(waiting.before, least.current ?? Infinity);
  return { waiting, least: least.current };
}

interface ProposalProps {
  proposal: Proposal;
  answer: Answer;
  nowS: ReadonlySignal<number> | null;
}

export function ProposalPhase({ proposal, answer, nowS }: ProposalProps) {
  const { waiting, least } = useWaiting(proposal.model, answer.askedAt);
  const now = nowS?.value ?? 0;
  const words = proposalWords(proposal, answer, now, waiting, least);
  return <PhaseLine words={words} runningS={nowS && words.runs ? now - proposal.startedS : null} />;
}

export function WriterPhase({ answer, nowS }: { answer: Answer; nowS: ReadonlySignal<number> | null }) {
  const stage = answer.stages.findLast(({ name }) => layerOf(name) === 0);
  const { waiting, least } = useWaiting(writerOf(answer) ?? answer.model, answer.askedAt);
  const now = nowS?.value ?? 0;
  const words = writerWords(answer, now, waiting, least);
  return <PhaseLine words={words} runningS={nowS && words.runs && stage ? now - stage.startedS : null} />;
}

export function PhaseLine({ words, runningS }: { words: Words; runningS: number | null }) {
  return (
    <span class={`phase ${words.tone}`}>
      <Icon name={words.sign} />
      <span class="phase-words">{words.words}</span>
      {runningS !== null && <span class="clock">{clock(runningS)}</span>}
    </span>
  );
}
