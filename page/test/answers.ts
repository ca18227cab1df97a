/** Answers and chats for tests. */
import type { Answer, Chat, Proposal } from "../src/answer/types.ts";

export function proposal(over: Partial<Proposal> = {}): Proposal {
  return {
    layer: 1,
    place: 0,
    model: "llama",
    phase: "done",
    text: "Blue.",
    startedS: 0,
    firstS: 3,
    seconds: 10,
    engineS: 8,
    tokens: 20,
    cause: null,
    detail: null,
    ...over,
  };
}

export function answer(over: Partial<Answer> = {}): Answer {
  return {
    id: "a1",
    model: "sky",
    question: "What colour is the sky?",
    askedAt: Date.UTC(2026, 10, 30, 10),
    phase: "done",
    proposals: [proposal(), proposal({ place: 1, model: "qwen", text: "It is blue by day.", seconds: 20 })],
    stages: [
      { name: "layer 1", models: ["llama", "qwen"], references: [], startedS: 0, firstS: null, seconds: 20 },
      {
        name: "aggregator",
        models: ["writer"],
        references: [
          { layer: 1, place: 1 },
          { layer: 1, place: 0 },
        ],
        startedS: 20,
        firstS: 1,
        seconds: 5,
      },
    ],
    text: "The sky is blue.",
    reasoning: "",
    answeredBy: "writer",
    fallback: null,
    cut: false,
    degraded: false,
    missing: [],
    trimmed: [],
    retried: [],
    seed: 7,
    finishReason: "stop",
    promptTokens: 6,
    completionTokens: 4,
    allTokens: 152,
    totalS: 25,
    fusedFrom: null,
    error: null,
    ...over,
  };
}

export function chat(over: Partial<Chat> = {}): Chat {
  return { id: "c1", title: "Sky", createdAt: Date.UTC(2026, 10, 30), answers: [answer()], votes: [], ...over };
}
