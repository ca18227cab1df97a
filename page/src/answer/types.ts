/** Seconds are counted from the moment when the mixture began to work on the request. */
export type ProposalPhase = "waits" | "thinks" | "writes" | "done" | "dropped";

/** One proposal: what one model of a layer writes. */
export interface Proposal {
  /** Number of the layer, counted from 1. */
  layer: number;
  /** Position of the proposal in its layer, counted from 0. */
  place: number;
  model: string;
  phase: ProposalPhase;
  text: string;
  /** When its layer began. */
  startedS: number;
  /** When its first token came, since `startedS`. */
  firstS: number | null;
  /** When its first text came, since `startedS`. Null until then; absent if its model did not think before. */
  textS?: number | null;
  /** When it was done or dropped, since `startedS`. */
  seconds: number | null;
  /** Seconds that the engine worked on it. */
  engineS: number | null;
  tokens: number | null;
  /** Why it was dropped, for programs; `not_needed` if the answer was there before. */
  cause: string | null;
  /** Why it was dropped, for people. */
  detail: string | null;
}

/** Where a proposal stands: its layer and its place in the layer. */
export interface Reference {
  layer: number;
  place: number;
}

/** The ways in which the text of an answer comes about; docs/methods.md describes them. */
export const METHODS = ["merge", "select", "vote", "agreement", "first", "stand_in", "direct"] as const;
export type Method = (typeof METHODS)[number];

/** A layer, or the writing of the answer. */
export interface Stage {
  /** `layer 1` and so on, `aggregator`, or `direct` for one model alone. */
  name: string;
  models: string[];
  /** The proposals that the models of the stage read, in the order of their prompts. */
  references: Reference[];
  startedS: number;
  firstS: number | null;
  seconds: number | null;
}

/** A model that should have contributed and did not. Layer 0 stands for the aggregator. */
export interface Missing {
  layer: number;
  model: string;
  cause: string;
  detail: string;
}

export type AnswerPhase = "waits" | "proposes" | "aggregates" | "done" | "stopped" | "failed";

/** One answer of the server with everything that is known about it: what the page shows and keeps. */
export interface Answer {
  id: string;
  /** The name that was asked for: the mixture, or one of its models. */
  model: string;
  question: string;
  /** Milliseconds since 1970. */
  askedAt: number;
  phase: AnswerPhase;
  proposals: Proposal[];
  stages: Stage[];
  text: string;
  reasoning: string;
  answeredBy: string | null;
  fallback: "aggregator" | "reference" | null;
  /** How the text came about; absent until that is known, and in answers of before there were methods. */
  method?: Method;
  /** Why the text came about in this way, in words of the server; absent if the recipe knows no other way. */
  why?: string;
  /** The proposal that is the answer; absent if a model writes the answer. */
  chosen?: Reference;
  cut: boolean;
  degraded: boolean;
  missing: Missing[];
  trimmed: { layer: number; model: string; tokens_removed: number }[];
  retried: { layer: number; model: string; detail: string }[];
  seed: number | null;
  /** What decided the order of the references; absent if one model answered alone. */
  order?: "seeded" | "arrival";
  finishReason: string | null;
  promptTokens: number | null;
  completionTokens: number | null;
  allTokens: number | null;
  totalS: number | null;
  /** The id of the answer whose proposals were used again. */
  fusedFrom: string | null;
  /** The id of the answer to the same question that this answer was asked for again. */
  retryOf?: string;
  error: { message: string; code: string | null; status: number | null } | null;
}

/** A conversation, as the browser keeps it. */
export interface Chat {
  id: string;
  title: string;
  /** Milliseconds since 1970. */
  createdAt: number;
  answers: Answer[];
  votes: Vote[];
}

/** One blind comparison of the mixture's answer with one member's proposal. */
export interface Vote {
  answerId: string;
  member: Reference & { model: string };
  first: "mixture" | "member";
  preferred: "first" | "second" | "tie";
  at: number;
  namesAModel: boolean;
}
