/** What an answer was made without, and who stood in, in words. Pure. */
import { methodWords } from "./method_words.ts";
import { causeWords } from "./phase_words.ts";
import { sentence } from "./sentence.ts";
import type { Answer, Missing } from "./types.ts";

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

/** Who wrote the answer in place of the recipe's aggregator; null if nobody had to. */
export function fallbackWords(answer: Answer): string | null {
  const { fallback, answeredBy, method } = answer;
  if (fallback === "aggregator") return `The recipe's aggregator failed. ${answeredBy}, a fallback, wrote this answer.`;
  if (fallback !== "reference") return null;
  if (method === "stand_in" && methodWords(answer)) return methodWords(answer);
  const place = answer.proposals.findIndex(
    (p) => p.model === answeredBy && p.phase === "done" && p.text === answer.text,
  );
  const which =
    place < 0 ? `a proposal of ${answeredBy}` : `proposal ${answer.proposals[place]!.place + 1}, by ${answeredBy},`;
  return `No aggregator answered: this is ${which} as it stands.`;
}
