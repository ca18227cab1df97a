/** The proposals of an answer, layer by layer, side by side. */
import type { ReadonlySignal } from "@preact/signals";
import { isChosen } from "../answer/method_words.ts";
import { causeWords } from "../answer/phase_words.ts";
import { isOver } from "../answer/reduce.ts";
import { seconds } from "../answer/times.ts";
import type { Answer, Proposal } from "../answer/types.ts";
import { Column } from "./column.tsx";
import { Icon } from "./icons.tsx";
import { enlarged, folds, setFold } from "./ui.ts";

interface Props {
  answer: Answer;
  nowS: ReadonlySignal<number> | null;
  /** Whether this is the turn that a person looks at: the last of the chat. */
  isCurrent: boolean;
}

export function Proposals({ answer, nowS, isCurrent }: Props) {
  const layers = [...new Set(answer.proposals.map((proposal) => proposal.layer))];
  return (
    <>
      {layers.map((layer) => {
        const isOpen = folds.value.get(foldName(answer, layer)) ?? (isCurrent && layer === layers.at(-1));
        return (
          <Layer key={layer} answer={answer} nowS={nowS} layer={layer} isOnly={layers.length === 1} isOpen={isOpen} />
        );
      })}
    </>
  );
}

function foldName(answer: Answer, layer: number): string {
  return `${answer.id}/${layer}`;
}

interface LayerProps {
  answer: Answer;
  nowS: ReadonlySignal<number> | null;
  layer: number;
  isOnly: boolean;
  isOpen: boolean;
}

function Layer({ answer, nowS, layer, isOnly, isOpen }: LayerProps) {
  const proposals = answer.proposals.filter((proposal) => proposal.layer === layer);
  const name = foldName(answer, layer);
  const large = enlarged.value?.answerId === answer.id ? enlarged.value.index : null;
  return (
    <section class="layer" aria-label={isOnly ? "Proposals" : `Proposals of layer ${layer}`}>
      <button type="button" class="fold" aria-expanded={isOpen} onClick={() => setFold(name, !isOpen)}>
        <Icon name={isOpen ? "down" : "right"} />
        <span class="fold-name">{isOnly ? "Proposals" : `Layer ${layer}`}</span>
        <span class="muted">{progress(proposals, answer)}</span>
      </button>
      {isOpen && (
        <div class={`columns${large === null ? "" : " has-large"}`}>
          {proposals.map((proposal) => {
            const index = answer.proposals.indexOf(proposal);
            const shared = { proposal, answer, index, nowS, of: proposals.length };
            return (
              <Column key={proposal.place} {...shared} isLarge={large === index} isAlone={proposals.length === 1} />
            );
          })}
        </div>
      )}
    </section>
  );
}

/** `2 of 3 are in`; once the answer is over, what became of each. */
function progress(proposals: readonly Proposal[], answer: Answer): string {
  const done = proposals.filter(({ phase }) => phase === "done").length;
  const ended = proposals.filter(({ phase }) => phase === "done" || phase === "dropped").length;
  if (!isOver(answer) && ended < proposals.length) return `${done} of ${proposals.length} are in`;
  return proposals.map((each) => `${fate(each)}${isChosen(each, answer) ? " (the answer)" : ""}`).join(", ");
}

function fate({ model, phase, seconds: took, cause }: Proposal): string {
  if (phase === "done") return !took ? model : `${model} ${seconds(took)}`;
  return phase === "dropped" ? `${model} ${causeWords(cause ?? "unknown")}` : model;
}
