/** What an empty chat shows: who answers here. */
import { loadModels, mixture, models, modelsProblem, state } from "../model/server.ts";
import { advice } from "../api/problem.ts";
import { sentence } from "../answer/sentence.ts";
import { openDialog } from "./ui.ts";

export function Greeting() {
  const problem = modelsProblem.value;
  if (problem && models.value.length === 0) {
    return (
      <div class="greeting" role="alert">
        <h2>{sentence(problem.message)}</h2>
        <p>{advice(problem)}</p>
        <div class="row">
          <button type="button" class="outlined" onClick={() => openDialog("key")}>
            Type a key
          </button>
          <button type="button" class="outlined" onClick={() => void loadModels()}>
            Try again
          </button>
        </div>
      </div>
    );
  }
  const recipe = state.value?.mixture;
  return (
    <div class="greeting">
      <h2>{mixture.value || "SlimMoA"}</h2>
      {recipe && recipe.layers.length > 0 && (
        <p>{unbroken(whoAnswers(recipe.layers, recipe.aggregators[0] ?? "the aggregator"))}</p>
      )}
    </div>
  );
}

/** `a, b and c propose. d reads their proposals and writes the answer.` */
export function whoAnswers(layers: string[][], aggregator: string): string {
  const first = [...new Set(layers[0])];
  const again = layers.length > 1 ? ` ${layers.length} layers build on each other.` : "";
  const proposals = first.length === 1 ? "its proposals" : "their proposals";
  return `${list(first)} ${first.length === 1 ? "proposes" : "propose"}.${again} ${aggregator} reads ${proposals} and writes the answer.`;
}

/** A text whose lines do not end within a name at its hyphens. */
function unbroken(words: string): string {
  return words.replaceAll("-", "\u2011");
}

function list(names: string[]): string {
  return names.length < 2 ? (names[0] ?? "") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}
