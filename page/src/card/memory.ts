/** How the memory of a card is used now, by the plan's bytes and the members' states. */
import type { CardState, MemberState } from "../api/state.ts";
import { titleOf } from "./members.ts";

export type Use = "awake" | "moving" | "asleep" | "failed" | "free";

/** A part of a card's memory. */
export interface Part {
  use: Use;
  /** Who holds it; empty for free memory. */
  title: string;
  /** The member's number in the card's list, from 1; 0 for free memory. */
  number: number;
  bytes: number;
}

const USES: Record<string, Use> = {
  resident: "awake",
  starting: "moving",
  waking: "moving",
  "falling asleep": "moving",
  stopping: "moving",
  asleep: "asleep",
  failed: "failed",
};

/** The parts of a card's memory in the order of its members, with the rest as free. Parts without bytes are left out. */
export function memoryParts(card: CardState): Part[] {
  const parts = card.members.map((member, n) => part(member, n + 1)).filter(({ bytes }) => bytes > 0);
  const held = parts.reduce((sum, { bytes }) => sum + bytes, 0);
  const free = card.total_bytes - held;
  return free > 0 ? [...parts, { use: "free", title: "", number: 0, bytes: free }] : parts;
}

function part(member: MemberState, number: number): Part {
  const use = USES[member.state];
  const bytes = use === undefined ? 0 : use === "asleep" ? member.asleep_bytes : member.awake_bytes;
  return { use: use ?? "free", title: titleOf(member), number, bytes };
}
