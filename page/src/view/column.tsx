/** One proposal while it grows, and when it is done or dropped. */
import type { ReadonlySignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { Answer, Proposal } from "../answer/types.ts";
import { isChosen, isNotNeeded } from "../answer/method_words.ts";
import { sentence } from "../answer/sentence.ts";
import { Markdown } from "../text/markdown.tsx";
import { Icon } from "./icons.tsx";
import { memo } from "./memo.ts";
import { ProposalPhase } from "./phase_line.tsx";
import { enlarged } from "./ui.ts";

interface Props {
  proposal: Proposal;
  answer: Answer;
  /** Position among all proposals of the answer. */
  index: number;
  of: number;
  nowS: ReadonlySignal<number> | null;
  isLarge: boolean;
  /** Whether the column is the only one that is shown, and then has no frame of its own. */
  isAlone: boolean;
}

export function Column({ proposal, answer, index, of, nowS, isLarge, isAlone }: Props) {
  const { model, place, phase, detail } = proposal;
  const name = `Proposal ${place + 1} of ${of}: ${model}`;
  const isAnswer = isChosen(proposal, answer);
  const section = useRef<HTMLElement>(null);
  useEffect(() => {
    if (isLarge && !isAlone) section.current?.scrollIntoView({ block: "nearest" });
  }, [isLarge]);
  const toggle = () => (enlarged.value = isLarge ? null : { answerId: answer.id, index });
  return (
    <section
      ref={section}
      class={`column ${isNotNeeded(proposal) ? "spared" : phase}${isLarge ? " large" : ""}${isAnswer ? " chosen" : ""}`}
      aria-label={isAnswer ? `${name}, the answer` : name}
      data-place={place}
      data-layer={proposal.layer}
    >
      <header class="column-head">
        <h3>{model}</h3>
        {!isAlone && (
          <button
            type="button"
            class="quiet square small"
            aria-label={isLarge ? `Make proposal ${place + 1} small again` : `Enlarge proposal ${place + 1}`}
            aria-pressed={isLarge}
            title={`Alt + ${index + 1}`}
            onClick={toggle}
          >
            <Icon name={isLarge ? "shrink" : "enlarge"} />
          </button>
        )}
        <ProposalPhase proposal={proposal} answer={answer} nowS={nowS} />
        {isAnswer && <span class="badge chosen-badge">the answer</span>}
      </header>
      {phase === "dropped" && detail && proposal.cause !== "stopped" && <p class="detail">{sentence(detail)}</p>}
      <Text text={proposal.text} isGrowing={phase === "writes"} name={name} />
    </section>
  );
}

/** The text of a proposal. While it grows, its end stays in view, unless a person has scrolled away. */
const Text = memo(function Text({ text, isGrowing, name }: { text: string; isGrowing: boolean; name: string }) {
  const ref = useRef<HTMLDivElement>(null);
  useEffect(() => {
    // A text that is whole is read from its beginning.
    const box = ref.current;
    if (!isGrowing && box && box.matches(":not(:hover, :focus)")) box.scrollTop = 0;
  }, [isGrowing]);
  if (!text) return <div class="column-text empty" ref={ref} />;
  return (
    <div
      class={`column-text${isGrowing ? " growing" : ""}`}
      ref={ref}
      tabIndex={0}
      role="group"
      aria-label={`Text of ${lower(name)}`}
    >
      <div class="prose small">
        <Markdown text={text} growing={isGrowing} />
      </div>
    </div>
  );
});

function lower(name: string): string {
  return name.charAt(0).toLowerCase() + name.slice(1);
}
