/** What a reader has to know of an answer beside its text: that it is degraded, stands in, was cut, or failed. */
import { methodWords } from "../answer/method_words.ts";
import { degradedReasons, fallbackWords } from "../answer/reasons.ts";
import { sentence } from "../answer/sentence.ts";
import type { Answer } from "../answer/types.ts";
import { advice, remedy } from "../api/problem.ts";
import { retryAt } from "../model/work.ts";
import { openDialog } from "./ui.ts";

export function AnswerNotes({ answer }: { answer: Answer }) {
  const reasons = degradedReasons(answer);
  const fallback = fallbackWords(answer);
  const method = answer.method === "stand_in" ? null : methodWords(answer);
  return (
    <>
      {method && <p class="note method">{method}</p>}
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
