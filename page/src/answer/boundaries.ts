/** What a screen reader is told while an answer is written: its boundaries, and never its text. Pure. */
import { isNotNeeded, placeWords } from "./method_words.ts";
import { chosenOf, layerOf } from "./reduce.ts";
import type { Answer, Proposal, Stage } from "./types.ts";

/** The sentences about what happened between two states of one answer. */
export function boundaries(before: Answer, after: Answer): string[] {
  const said: string[] = [];
  for (const stage of after.stages.slice(before.stages.length)) {
    const layer = layerOf(stage.name);
    if (layer > 0) said.push(`Layer ${layer}: ${count(stage.models.length, "model")} asked.`);
    else if (!after.chosen) said.push(`${stage.models[0] ?? "A model"} ${beginning(stage)}.`);
  }
  after.proposals.forEach((proposal, n) => {
    if (proposal.phase !== before.proposals[n]?.phase) said.push(...ended(proposal, after));
  });
  const chosen = before.chosen ? undefined : chosenOf(after);
  if (chosen) said.push(`The answer is ${placeWords(chosen, after)}, by ${chosen.model}.`);
  if (after.phase !== before.phase) {
    if (after.phase === "done")
      said.push(`Answer done, ${whole(after.totalS)}.${after.degraded ? " It is degraded." : ""}`);
    if (after.phase === "stopped") said.push("Answer stopped.");
  }
  return said;
}

/** The aggregator may pick or write, which nobody knows yet. */
function beginning({ references }: Stage): string {
  return references.length > 0 ? "reads the proposals" : "begins the answer";
}

function ended(proposal: Proposal, { proposals, phase: answerPhase }: Answer): string[] {
  const { layer, place, phase, seconds, cause } = proposal;
  const all = proposals.filter((proposal) => proposal.layer === layer).length;
  const which = `Proposal ${place + 1} of ${all}`;
  if (phase === "done") return [`${which} done, ${whole(seconds)}.`];
  if (isNotNeeded(proposal)) return [`${which} is not needed.`];
  if (phase === "dropped" && answerPhase !== "stopped")
    return [`${which} dropped: ${(cause ?? "").replaceAll("_", " ")}.`];
  return [];
}

function whole(seconds: number | null): string {
  return seconds === null ? "time unknown" : `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
}

function count(number: number, what: string): string {
  return number === 1 ? `1 ${what}` : `${number} ${what}s`;
}
