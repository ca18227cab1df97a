/** What a reader has to know of an answer beside its text: that it is degraded, stands in, was cut, or failed. */
import { causeWords } from "../answer/phase_words.ts";
import type { Answer, Missing } from "../answer/types.ts";
import { advice, remedy } from "../api/problem.ts";
import { retryAt } from "../model/work.ts";
import { sentence } from "./column.tsx";
import { openDialog } from "./ui.ts";

/** Everything that the answer was made without, one sentence each. */
export function degradedReasons(answer: Answer): string[] {
  const reasons = answer.missing.map(missingWords);
  if (answer.cut) reasons.push("The deadline of the recipe ended the answer early.");
  return reasons;
}

function missingWords({ layer, model, cause, detail }: Missing): string {
  const words = cause === "late" ? "was late" : causeWords(cause);
  if (layer > 0) return `${model}, in layer ${layer}, ${words}. ${sentence(detail)}`;
  return `${model} did not write the answer: ${words.replace("dropped: ", "")}. ${sentence(detail)}`;
}

/** Who wrote the answer in place of the recipe's aggregator; null if the aggregator did. */
export function fallbackWords(answer: Answer): string | null {
  const { fallback, answeredBy } = answer;
  if (fallback === "aggregator") return `The recipe's aggregator failed. ${answeredBy}, a fallback, wrote this answer.`;
  if (fallback !== "reference") return null;
  const place = answer.proposals.findIndex(
    (p) => p.model === answeredBy && p.phase === "done" && p.text === answer.text,
  );
  const which =
    place < 0 ? `a proposal of ${answeredBy}` : `proposal ${answer.proposals[place]!.place + 1}, by ${answeredBy},`;
  return `No aggregator answered: this is ${which} as it stands.`;
}

export function AnswerNotes({ answer }: { answer: Answer }) {
  const reasons = degradedReasons(answer);
  const fallback = fallbackWords(answer);
  return (
    <>
      {fallback && <p class="note warn">{fallback}</p>}
      {reasons.length > 0 && (
        <details class="degraded">
          <summary>
            <span class="badge">degraded</span>
            <span class="muted">{reasons.length === 1 ? "1 reason" : `${reasons.length} reasons`}</span>
          </summary>
          <ul class="reasons">
            {reasons.map((reason, n) => (
              <li key={n}>{reason}</li>
            ))}
          </ul>
        </details>
      )}
      {answer.finishReason === "length" && <p class="note">The answer ended at its limit of tokens.</p>}
      {answer.error && <ErrorNote answer={answer} error={answer.error} />}
    </>
  );
}

function ErrorNote({ answer, error }: { answer: Answer; error: NonNullable<Answer["error"]> }) {
  const at = retryAt.get(answer.id);
  const retryAfterS = at === undefined ? null : Math.max(0, Math.ceil((at - Date.now()) / 1000));
  return (
    <div class="note bad" role="alert">
      <p>{sentence(error.message)}</p>
      <p>{advice({ ...error, retryAfterS })}</p>
      {remedy(error) === "key" && (
        <button type="button" class="outlined" onClick={() => openDialog("key")}>
          Type a key
        </button>
      )}
    </div>
  );
}
