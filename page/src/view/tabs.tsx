/** The parts of an answer as tabs, for narrow pages: the answer, each proposal, the times, the card. */
import type { ReadonlySignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import type { Turn } from "../answer/turns.ts";
import type { Answer, Proposal } from "../answer/types.ts";
import { isChosen, isNotNeeded } from "../answer/method_words.ts";
import { isOver } from "../answer/reduce.ts";
import { state, stateProblem } from "../model/server.ts";
import { AnswerBox, Times } from "./answer_box.tsx";
import { Column } from "./column.tsx";
import { CardPanel } from "./parts.ts";
import { ProposalPhase } from "./phase_line.tsx";
import { tab, type Tab } from "./ui.ts";

/** Least way of a finger, in pixels, that changes the tab. */
const SWIPE_PX = 60;

interface Props {
  answer: Answer;
  turn: Turn;
  nowS: ReadonlySignal<number> | null;
  isCurrent: boolean;
}

export function Tabs(props: Props) {
  const { answer, turn, nowS, isCurrent } = props;
  if (!isCurrent) return <AnswerBox answer={answer} turn={turn} nowS={nowS} hasTimeTab={false} />;
  const names: Tab[] = ["answer", ...answer.proposals.map((_, n) => n), "time", "card"];
  const shown = names.includes(tab.value) ? tab.value : "answer";
  const go = (steps: number) => {
    const next = names[names.indexOf(shown) + steps];
    if (next !== undefined) tab.value = next;
  };
  return (
    <div class="tabs">
      <TabStrip names={names} shown={shown} answer={answer} go={go} />
      <Pane {...props} shown={shown} go={go} />
    </div>
  );
}

function tabId(answer: Answer, name: Tab): string {
  return `tab-${answer.id}-${name}`;
}

interface StripProps {
  names: Tab[];
  shown: Tab;
  answer: Answer;
  go: (steps: number) => void;
}

function TabStrip({ names, shown, answer, go }: StripProps) {
  const onKeyDown = (event: KeyboardEvent) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (steps === undefined) return;
    event.preventDefault();
    go(steps);
    const next = names[names.indexOf(shown) + steps];
    if (next !== undefined) document.getElementById(tabId(answer, next))?.focus();
  };
  return (
    <div class="tab-strip" role="tablist" aria-label="Parts of the answer" onKeyDown={onKeyDown}>
      {names.map((name) => (
        <button
          key={name}
          type="button"
          role="tab"
          id={tabId(answer, name)}
          aria-selected={name === shown}
          aria-controls={`${tabId(answer, "answer")}-pane`}
          aria-label={typeof name === "number" ? proposalName(name, answer) : undefined}
          tabIndex={name === shown ? 0 : -1}
          class={typeof name === "number" ? proposalClass(answer.proposals[name]!, answer) : ""}
          onClick={() => (tab.value = name)}
        >
          {typeof name === "number" ? name + 1 : { answer: "Answer", time: "Time", card: "Card" }[name]}
        </button>
      ))}
    </div>
  );
}

function proposalName(n: number, answer: Answer): string {
  const proposal = answer.proposals[n]!;
  return `Proposal ${n + 1}, ${proposal.model}${isChosen(proposal, answer) ? ", the answer" : ""}`;
}

function proposalClass(proposal: Proposal, answer: Answer): string {
  if (isChosen(proposal, answer)) return `${proposal.phase} chosen`;
  return isNotNeeded(proposal) ? "spared" : proposal.phase;
}

function Pane({ answer, turn, nowS, shown, go }: Props & { shown: Tab; go: (steps: number) => void }) {
  const from = useRef<Touch | null>(null);
  const onTouchStart = (event: TouchEvent) => {
    from.current = event.touches.length === 1 && !scrollsSideways(event.target as Element) ? event.touches[0]! : null;
  };
  const onTouchEnd = (event: TouchEvent) => {
    const [start, end] = [from.current, event.changedTouches[0]];
    if (!start || !end) return;
    const [right, down] = [end.clientX - start.clientX, end.clientY - start.clientY];
    if (Math.abs(right) > SWIPE_PX && Math.abs(right) > 2 * Math.abs(down)) go(right > 0 ? -1 : 1);
  };
  return (
    <div
      class="pane"
      role="tabpanel"
      id={`${tabId(answer, "answer")}-pane`}
      aria-labelledby={tabId(answer, shown)}
      onTouchStart={onTouchStart}
      onTouchEnd={onTouchEnd}
    >
      {shown === "answer" && (
        <>
          {!isOver(answer) && !answer.text && <Overview answer={answer} nowS={nowS} />}
          <AnswerBox answer={answer} turn={turn} nowS={nowS} hasTimeTab />
        </>
      )}
      {typeof shown === "number" && <OneColumn answer={answer} nowS={nowS} index={shown} />}
      {shown === "time" && <Times answer={answer} nowS={nowS} />}
      {shown === "card" && <CardPanel state={state.value} problem={stateProblem.value} />}
    </div>
  );
}

/** Whether something under the finger scrolls to the sides by itself. */
function scrollsSideways(element: Element | null): boolean {
  for (let at = element; at && !at.classList.contains("pane"); at = at.parentElement) {
    if (at.scrollWidth > at.clientWidth + 1 && getComputedStyle(at).overflowX !== "visible") return true;
  }
  return false;
}

/** What each proposer is doing, until there is an answer to read. */
function Overview({ answer, nowS }: { answer: Answer; nowS: ReadonlySignal<number> | null }) {
  return (
    <ul class="overview">
      {answer.proposals.map((proposal, n) => (
        <li key={n}>
          <button type="button" class="overview-row" onClick={() => (tab.value = n)}>
            <strong>{proposal.model}</strong>
            <ProposalPhase proposal={proposal} answer={answer} nowS={nowS} />
          </button>
        </li>
      ))}
    </ul>
  );
}

function OneColumn({ answer, nowS, index }: { answer: Answer; nowS: ReadonlySignal<number> | null; index: number }) {
  const proposal = answer.proposals[index]!;
  const of = answer.proposals.filter(({ layer }) => layer === proposal.layer).length;
  return <Column key={index} proposal={proposal} answer={answer} index={index} of={of} nowS={nowS} isLarge isAlone />;
}
