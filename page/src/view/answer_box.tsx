/** The answer with who wrote it, what a reader has to know of it, and what can be done with it. */
import type { ReadonlySignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { isOver, layerOf, writerOf } from "../answer/reduce.ts";
import type { Turn } from "../answer/turns.ts";
import type { Answer } from "../answer/types.ts";
import { announce } from "../model/announcements.ts";
import { retry, running } from "../model/asking.ts";
import { chosenVersions } from "../model/chats.ts";
import { state } from "../model/server.ts";
import { copyText } from "../text/copy.ts";
import { Markdown } from "../text/markdown.tsx";
import { AnswerNotes } from "./answer_notes.tsx";
import { Icon, type IconName } from "./icons.tsx";
import { memo } from "./memo.ts";
import { Waterfall, Why } from "./parts.ts";
import { WriterPhase } from "./phase_line.tsx";
import { folds, openDialog, setFold } from "./ui.ts";

/** How long a button says what it did. */
const SAID_MS = 2000;
/** A panel that is lower, in pixels, is still being loaded. */
const LOW_PX = 60;

interface Props {
  answer: Answer;
  turn: Turn;
  nowS: ReadonlySignal<number> | null;
  /** Whether the waterfall has a place of its own elsewhere. */
  hasTimeTab: boolean;
}

export function AnswerBox({ answer, turn, nowS, hasTimeTab }: Props) {
  const stage = answer.stages.findLast(({ name }) => layerOf(name) === 0);
  const isThere = answer.text || answer.reasoning || stage || isOver(answer);
  if (!isThere) return null;
  const writer = writerOf(answer) ?? answer.model;
  const isWriting = answer.phase === "aggregates";
  return (
    <section class="answer" aria-label={`Answer by ${writer}`} aria-busy={!isOver(answer)}>
      <header class="answer-head">
        <h3>{writer}</h3>
        <WriterPhase answer={answer} nowS={nowS} />
        <Versions turn={turn} answer={answer} />
      </header>
      <AnswerNotes answer={answer} />
      {answer.reasoning && (
        <details class="reasoning">
          <summary>Reasoning of {writer}</summary>
          <div class="prose small">
            <Body text={answer.reasoning} growing={isWriting && !answer.text} />
          </div>
        </details>
      )}
      {answer.text && (
        <div class="prose">
          <Body text={answer.text} growing={isWriting} />
        </div>
      )}
      {isOver(answer) && <Tools answer={answer} hasTimeTab={hasTimeTab} />}
      <Panels answer={answer} hasTimeTab={hasTimeTab} />
    </section>
  );
}

const Body = memo(function Body({ text, growing }: { text: string; growing: boolean }) {
  return <Markdown text={text} growing={growing} />;
});

function Versions({ turn, answer }: { turn: Turn; answer: Answer }) {
  const at = turn.versions.findIndex(({ id }) => id === answer.id);
  if (turn.versions.length < 2) return null;
  const show = (n: number) => {
    const id = turn.versions[n]!.id;
    chosenVersions.value = new Map(chosenVersions.peek()).set(turn.id, id);
  };
  return (
    <span class="versions" role="group" aria-label="Answers to this question">
      <button
        type="button"
        class="quiet square small"
        aria-label="Answer before"
        disabled={at === 0}
        onClick={() => show(at - 1)}
      >
        <Icon name="left" />
      </button>
      <span class="clock">{`${at + 1} of ${turn.versions.length}`}</span>
      <button
        type="button"
        class="quiet square small"
        aria-label="Answer after"
        disabled={at === turn.versions.length - 1}
        onClick={() => show(at + 1)}
      >
        <Icon name="right" />
      </button>
    </span>
  );
}

function Tools({ answer, hasTimeTab }: { answer: Answer; hasTimeTab: boolean }) {
  const isBusy = running.value !== null;
  const hasProposals = answer.proposals.length > 0;
  return (
    <div class="tools" role="group" aria-label="What to do with this answer">
      {answer.text && <CopyTool text={answer.text} />}
      <Tool icon="retry" name="Retry" disabled={isBusy} onClick={() => retry(answer)} />
      {hasProposals && (
        <Tool icon="fuse" name="Fuse again" disabled={isBusy} onClick={() => openDialog("fuse", answer.id)} />
      )}
      {hasProposals && answer.text && (
        <Tool icon="compare" name="Compare" onClick={() => openDialog("compare", answer.id)} />
      )}
      <Tool icon="export" name="Export" onClick={() => openDialog("export")} />
      <FoldTool icon="why" name="Why" fold={`${answer.id}/why`} />
      {!hasTimeTab && <FoldTool icon="times" name="Times" fold={`${answer.id}/times`} />}
    </div>
  );
}

function CopyTool({ text }: { text: string }) {
  const [said, setSaid] = useState("Copy");
  const copy = async () => {
    const isCopied = await copyText(text);
    setSaid(isCopied ? "Copied" : "Not copied");
    announce([isCopied ? "The answer is copied." : "The browser does not let this page copy."]);
    setTimeout(() => setSaid("Copy"), SAID_MS);
  };
  return <Tool icon={said === "Copied" ? "done" : "copy"} name={said} onClick={() => void copy()} />;
}

interface ToolProps {
  icon: IconName;
  name: string;
  disabled?: boolean;
  expanded?: boolean;
  onClick: () => void;
}

function Tool({ icon, name, disabled = false, expanded, onClick }: ToolProps) {
  return (
    <button type="button" class="tool" disabled={disabled} aria-expanded={expanded} onClick={onClick}>
      <Icon name={icon} />
      <span>{name}</span>
    </button>
  );
}

function FoldTool({ icon, name, fold }: { icon: IconName; name: string; fold: string }) {
  const isOpen = folds.value.get(fold) ?? false;
  return <Tool icon={icon} name={name} expanded={isOpen} onClick={() => setFold(fold, !isOpen)} />;
}

function Panels({ answer, hasTimeTab }: { answer: Answer; hasTimeTab: boolean }) {
  const isOpen = (name: string) => folds.value.get(`${answer.id}/${name}`) ?? false;
  return (
    <>
      {isOpen("why") && (
        <Panel>
          <Why answer={answer} />
        </Panel>
      )}
      {isOpen("times") && !hasTimeTab && (
        <Panel>
          <Times answer={answer} nowS={null} />
        </Panel>
      )}
    </>
  );
}

/** Brings into view what was just opened, once it has its height. */
function Panel({ children }: { children: ComponentChildren }) {
  const ref = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const box = ref.current!;
    const observer = new ResizeObserver(() => {
      box.scrollIntoView({ block: "nearest" });
      if (box.clientHeight > LOW_PX) observer.disconnect();
    });
    observer.observe(box);
    return () => observer.disconnect();
  }, []);
  return <div ref={ref}>{children}</div>;
}

export function Times({ answer, nowS }: { answer: Answer; nowS: ReadonlySignal<number> | null }) {
  return (
    <div class="times">
      <Waterfall answer={answer} limits={state.value?.mixture ?? null} nowS={nowS?.value ?? null} />
    </div>
  );
}
