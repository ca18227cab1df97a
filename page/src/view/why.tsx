/** Why the answer is as it is: who read what, in which order, with which seed, and what went wrong on the way. */
import type { Answer, Reference, Stage } from "../answer/types.ts";
import { methodName } from "../answer/method_words.ts";
import { layerOf } from "../answer/reduce.ts";
import { sentence } from "../answer/sentence.ts";
import { seconds } from "../answer/times.ts";

export function Why({ answer }: { answer: Answer }) {
  return (
    <dl class="why">
      {rows(answer).map(([name, what]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{what}</dd>
        </div>
      ))}
    </dl>
  );
}

/** Name and sentence of each thing that there is to tell. */
export function rows(answer: Answer): [string, string][] {
  const told: [string, string][] = [];
  if (answer.answeredBy) told.push(["Written by", `${answer.answeredBy}, asked as ${answer.model}`]);
  const method = methodName(answer);
  if (method) told.push(["Method", method]);
  if (answer.why) told.push(["Reason", sentence(answer.why)]);
  for (const stage of answer.stages) {
    if (stage.references.length > 0 && isRead(stage, answer)) told.push([orderName(stage), order(stage.references, answer)]);
  }
  if (answer.seed !== null) told.push(["Seed", `${answer.seed}: ${orderOf(answer)}`]);
  if (answer.fusedFrom) told.push(["Proposals", "taken from the answer before, and fused again"]);
  for (const { layer, model, tokens_removed: tokens } of answer.trimmed) {
    told.push([
      "Shortened",
      `${tokens} tokens of references were cut away for ${model}${ofLayer(layer)}, so that its prompt fits its context`,
    ]);
  }
  for (const { layer, model, detail } of answer.retried) {
    told.push(["Called again", `${model}${ofLayer(layer)}: ${sentence(detail)}`]);
  }
  const { promptTokens, completionTokens, allTokens, totalS } = answer;
  if (completionTokens !== null) {
    const all = allTokens === null ? "" : `; ${allTokens} in all calls together`;
    told.push(["Tokens", `${promptTokens} of the conversation, ${completionTokens} of the answer${all}`]);
  }
  if (totalS !== null) told.push(["Time", `${seconds(totalS)} in all`]);
  return told;
}

/** What the seed of an answer decided about the order of the references. */
function orderOf({ order }: Answer): string {
  if (order === "arrival") return "the proposals were read as they came, so the same seed may give another order.";
  return "it drew the order of the references. The same seed gives the same order.";
}

/** Whether a model read the references of a stage. Nobody reads them where the proposals themselves decide. */
function isRead(stage: Stage, { method }: Answer): boolean {
  return layerOf(stage.name) > 0 || !(method === "vote" || method === "agreement" || method === "first");
}

function orderName(stage: Stage): string {
  const layer = layerOf(stage.name);
  return layer > 0 ? `Layer ${layer} read` : "Aggregator read";
}

function order(references: readonly Reference[], answer: Answer): string {
  const names = references.map(({ layer, place }) => {
    const model = answer.proposals.find((p) => p.layer === layer && p.place === place)?.model ?? "a proposal";
    return `${place + 1} (${model})`;
  });
  return `proposals in this order: ${names.join(", ")}`;
}

function ofLayer(layer: number): string {
  return layer === 0 ? "" : ` in layer ${layer}`;
}
