/** A question, the proposals, and the answer: side by side where there is room, and as tabs where there is none. */
import type { ReadonlySignal } from "@preact/signals";
import { isOver } from "../answer/reduce.ts";
import { shownVersion, type Turn } from "../answer/turns.ts";
import type { Answer } from "../answer/types.ts";
import { running } from "../model/asking.ts";
import { chosenVersions } from "../model/chats.ts";
import { AnswerBox } from "./answer_box.tsx";
import { memo } from "./memo.ts";
import { Proposals } from "./proposals.tsx";
import { Tabs } from "./tabs.tsx";
import { isWide } from "./ui.ts";

/** From this length on a question is shown in smaller letters. */
const LONG_QUESTION = 240;

interface Props {
  turn: Turn;
  isCurrent: boolean;
}

export const TurnView = memo(function TurnView({ turn, isCurrent }: Props) {
  const kept = shownVersion(turn, chosenVersions.value);
  const live = running.value;
  const isLive = live !== null && live.answer.peek().id === kept.id;
  const answer = isLive ? live.answer.value : kept;
  const nowS = isLive ? live.nowS : null;
  return (
    <article class="turn" aria-label={`Question: ${answer.question.slice(0, 80)}`}>
      <h2 class={answer.question.length > LONG_QUESTION ? "question long" : "question"}>{answer.question}</h2>
      {isWide.value ? (
        <>
          <Proposals answer={answer} nowS={nowS} isCurrent={isCurrent} />
          <AnswerBox answer={answer} turn={turn} nowS={nowS} hasTimeTab={false} />
        </>
      ) : (
        <Tabs answer={answer} turn={turn} nowS={nowS} isCurrent={isCurrent} />
      )}
      {!isOver(answer) && <Waiting answer={answer} nowS={nowS} silentS={isLive ? live.silentS : null} />}
    </article>
  );
});

interface WaitingProps {
  answer: Answer;
  nowS: ReadonlySignal<number> | null;
  silentS: ReadonlySignal<number> | null;
}

/** What is said while nothing can be seen yet, or while nothing comes any more. */
function Waiting({ answer, silentS }: WaitingProps) {
  if (silentS && silentS.value > 0) {
    const words = `Nothing has come from the server for ${Math.round(silentS.value)} s. It usually gives a sign of life every few seconds.`;
    return <p class="note warn">{words}</p>;
  }
  if (answer.stages.length === 0 && answer.proposals.length === 0)
    return <p class="muted asking">The server has the question.</p>;
  return null;
}
