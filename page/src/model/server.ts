/** What the page knows of the server: its models, and the state of its cards while somebody looks. */
import { batch, computed, signal } from "@preact/signals";
import { Client, type Model } from "../api/client.ts";
import { asProblem, remedy, type Problem } from "../api/problem.ts";
import type { ServerState } from "../api/state.ts";
import { key } from "./key.ts";

/** Time between two looks at the state, while it is shown in full or in the top bar alone. */
const LOOK_MS = 1000;
const GLANCE_MS = 5000;

export const client = new Client(() => key.peek());

export const models = signal<Model[]>([]);
/** The name that the next question goes to. */
export const chosenModel = signal("");
export const modelsProblem = signal<Problem | null>(null);
export const state = signal<ServerState | null>(null);
/** When the state was asked for, by this browser's clock; milliseconds since 1970. */
export const stateSeenAt = signal(0);
export const stateProblem = signal<string | null>(null);
/** Set when the server refuses the key, so that the page asks for one. */
export const keyWanted = signal<string | null>(null);

/** The name of the mixture: the first model that is not one of its members. */
export const mixture = computed(
  () => state.value?.mixture.name ?? models.value.find((model) => model.owned_by === "slimmoa")?.id ?? "",
);

/** Note a problem of any request: a refused key is asked for, and a list of models that is old is read anew. */
export function noteProblem(problem: Problem): void {
  const next = remedy(problem);
  if (next === "key") keyWanted.value = problem.message;
  if (next === "models") void loadModels();
}

export async function loadModels(): Promise<void> {
  try {
    models.value = await client.models();
    modelsProblem.value = null;
    const names = models.value.map((model) => model.id);
    if (!names.includes(chosenModel.peek())) chosenModel.value = mixture.peek() || names[0] || "";
  } catch (error) {
    const problem = asProblem(error);
    modelsProblem.value = problem;
    noteProblem(problem);
  }
}

/** Asks for the state again and again while the page is visible and `wanted` says that it is shown. */
export class StateWatch {
  private timer: ReturnType<typeof setTimeout> | undefined;
  private asking = false;

  constructor(private readonly wanted: () => "look" | "glance" | "no") {
    document.addEventListener("visibilitychange", () => this.look());
  }

  /** Look now, if the state is shown at all, and then at regular times. */
  look(): void {
    clearTimeout(this.timer);
    const wanted = this.wanted();
    if (wanted === "no" || document.hidden || keyWanted.peek() !== null) return;
    if (!this.asking) void this.ask();
    this.timer = setTimeout(() => this.look(), wanted === "look" ? LOOK_MS : GLANCE_MS);
  }

  private async ask(): Promise<void> {
    this.asking = true;
    try {
      const askedAt = Date.now();
      const found = await client.state();
      batch(() => {
        state.value = found;
        stateSeenAt.value = askedAt;
        stateProblem.value = null;
      });
    } catch (error) {
      const problem = asProblem(error);
      stateProblem.value = problem.message;
      noteProblem(problem);
    } finally {
      this.asking = false;
    }
  }
}
