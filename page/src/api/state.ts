/** What `GET /v1/state` answers; docs/api.md describes each field. */
import type { FuseMethod } from "./client.ts";

export interface MemberState {
  name: string;
  slot: string;
  state: string;
  turn: "open" | "closing" | "closed";
  in_flight: number;
  waiting: number;
  oldest_wait_s: number;
  last_step_s: number | null;
  failure: string;
  awake_bytes: number;
  asleep_bytes: number;
  orders: Record<string, number>;
  step_seconds: Record<string, number>;
}

export interface CardState {
  node: string;
  gpus: number[] | null;
  name: string;
  total_bytes: number;
  members: MemberState[];
}

export interface MixtureState {
  name: string;
  layers: string[][];
  aggregators: string[];
  methods: FuseMethod[];
  quorum: number;
  grace_s: number | null;
  layer_deadline_s: number;
  deadline_s: number;
}

export interface ServerState {
  mixture: MixtureState;
  models: string[];
  cards: CardState[];
  at: number;
}
