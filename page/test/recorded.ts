/** Streams for tests: the one that docs/api.md shows, and shorter ones as the server writes them. */
import { readFileSync } from "node:fs";
import type { Chunk, MoaEvent, Summary } from "../src/answer/chunks.ts";
import { newAnswer } from "../src/answer/reduce.ts";
import type { Answer } from "../src/answer/types.ts";

/** The chunks of the recording in docs/api.md. Tests run in page/. */
export function documentedStream(): Chunk[] {
  const lines = readFileSync("../docs/api.md", "utf8").split("\n");
  const data = lines.filter((line) => line.startsWith("data: {")).map((line) => line.slice("data: ".length));
  return data.map((json) => JSON.parse(json) as Chunk);
}

export function asked(more: Partial<Answer> = {}): Answer {
  return newAnswer({ id: "one", model: "sky", question: "What colour is the sky?", askedAt: 0 }, more);
}

export function event(moa: MoaEvent): Chunk {
  return { choices: [], moa };
}

export function words(content: string, finish_reason: string | null = null): Chunk {
  return { choices: [{ delta: { content }, finish_reason }] };
}

export function started(stage: string, models: string[], at_s = 0): Chunk {
  return event({ type: "stage.started", stage, models, references: [], at_s });
}

export function grew(place: number, model: string, text: string, layer = 1): Chunk {
  return event({ type: "proposal.delta", layer, place, model, text });
}

export function thinks(place: number, model: string, layer = 1): Chunk {
  return event({ type: "proposal.thinks", layer, place, model });
}

export function summary(more: Partial<Summary> = {}): Chunk {
  const whole: Summary = {
    type: "summary",
    degraded: false,
    missing: [],
    answered_by: "writer",
    fallback: null,
    cut: false,
    trimmed: [],
    retried: [],
    stages: [],
    seed: 1,
    method: "merge",
  };
  return event({ ...whole, ...more });
}
