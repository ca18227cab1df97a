/** What the server sends in a stream; docs/api.md describes each field ("Events of the mixture"). */
import type { Method, Missing, Reference } from "./types.ts";

export interface StageStarted {
  type: "stage.started";
  stage: string;
  models: string[];
  references: Reference[];
  at_s: number;
}

export interface ProposalThinks extends Reference {
  type: "proposal.thinks";
  model: string;
}

export interface ProposalDelta extends Reference {
  type: "proposal.delta";
  model: string;
  text: string;
}

export interface ProposalDone extends Reference {
  type: "proposal.done";
  model: string;
  text: string;
  seconds: number;
  first_s: number | null;
  engine_s: number;
  completion_tokens: number;
}

export interface ProposalDropped extends Reference {
  type: "proposal.dropped";
  model: string;
  cause: string;
  detail: string;
  seconds: number;
}

export interface AggregatorFailed extends Missing {
  type: "aggregator.failed";
}

export interface Decided {
  type: "decided";
  method: Method;
  why: string;
  chosen: Reference | null;
}

export interface Trimmed {
  type: "trimmed";
  layer: number;
  model: string;
  tokens_removed: number;
}

export interface Retried {
  type: "retried";
  layer: number;
  model: string;
  detail: string;
}

export interface StageDone {
  type: "stage.done";
  stage: string;
  seconds: number;
  first_s: number | null;
}

export interface StageTime {
  stage: string;
  seconds: number;
  first_s: number | null;
  at_s: number;
  references: Reference[];
}

export interface Summary {
  type: "summary";
  degraded: boolean;
  missing: Missing[];
  answered_by: string;
  fallback: "aggregator" | "reference" | null;
  cut: boolean;
  trimmed: Omit<Trimmed, "type">[];
  retried: Omit<Retried, "type">[];
  stages: StageTime[];
  seed: number;
  order?: "seeded" | "arrival" | null;
  method: Method;
  why?: string;
  chosen?: Reference;
}

export type MoaEvent =
  | StageStarted
  | ProposalThinks
  | ProposalDelta
  | ProposalDone
  | ProposalDropped
  | AggregatorFailed
  | Decided
  | Trimmed
  | Retried
  | StageDone
  | Summary;

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  all_calls?: { total_tokens: number };
}

export interface ErrorBody {
  message: string;
  code: string | null;
}

/** One server-sent event of a stream. */
export interface Chunk {
  choices?: {
    delta: { content?: string | null; reasoning_content?: string | null };
    finish_reason: string | null;
  }[];
  moa?: MoaEvent;
  usage?: Usage | null;
  error?: ErrorBody;
}
