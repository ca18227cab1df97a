/** The members of cards as a person knows them: names, slots, states, numbers in words. */
import type { CardState, MemberState, ServerState } from "../api/state.ts";
import { secondsInWords } from "../text/seconds.ts";

const GIB = 2 ** 30;
const MIB = 2 ** 20;

/** States in words of a person, by the words of the server. */
const STATES: Record<string, string> = {
  resident: "awake",
  asleep: "asleep",
  waking: "waking",
  "falling asleep": "falling asleep",
  starting: "starting",
  stopping: "stopping",
  stopped: "stopped",
  failed: "failed",
  "not started": "not started",
  absent: "no replica",
};

/** What a member is doing, in one or two words. */
export function stateInWords(member: MemberState): string {
  return STATES[member.state] ?? member.state;
}

/** `qwen` for `qwen/0`, `qwen #2` for `qwen/1`. */
export function titleOf(member: MemberState): string {
  const slash = member.name.lastIndexOf("/");
  const replica = Number(member.name.slice(slash + 1));
  if (slash < 0 || !Number.isInteger(replica)) return member.name;
  const model = member.name.slice(0, slash);
  return replica > 0 ? `${model} #${replica + 1}` : model;
}

/** The model of a member. */
export function modelOf(member: MemberState): string {
  const slash = member.name.lastIndexOf("/");
  return slash < 0 ? member.name : member.name.slice(0, slash);
}

/** The members of a card by slot, in the card's order. */
export function slotsOf(card: CardState): MemberState[][] {
  const slots = new Map<string, MemberState[]>();
  for (const member of card.members) {
    const slot = slots.get(member.slot);
    if (slot) slot.push(member);
    else slots.set(member.slot, [member]);
  }
  return [...slots.values()];
}

/** What a card is called: its name, and its GPUs or that it is a CPU. */
export function cardTitle(card: CardState): string {
  const gpus = card.gpus ?? [];
  if (gpus.length === 0) return /\bcpu\b/i.test(card.name) || !card.name ? card.name || "CPU" : `${card.name} (CPU)`;
  const numbers = gpus.length > 1 ? `GPUs ${gpus.slice(0, -1).join(", ")} and ${gpus.at(-1)}` : `GPU ${gpus[0]}`;
  return card.name ? `${card.name} (${numbers})` : numbers;
}

/** The models of the mixture that run on no card. */
export function modelsElsewhere({ mixture, cards }: ServerState): string[] {
  const here = new Set(cards.flatMap((card) => card.members.map(modelOf)));
  return [...new Set([...mixture.layers.flat(), ...mixture.aggregators])].filter((model) => !here.has(model));
}

/** `1 call`, `3 calls`. */
export function callsInWords(count: number): string {
  return count === 1 ? "1 call" : `${count} calls`;
}

/** `3 calls, the oldest for 12 s`. */
export function waitInWords({ waiting, oldest_wait_s }: MemberState): string {
  const oldest = secondsInWords(Math.round(oldest_wait_s));
  return waiting === 1 ? `1 call, for ${oldest}` : `${callsInWords(waiting)}, the oldest for ${oldest}`;
}

/** `a`, `a and b`, `a, b and c`. */
export function listInWords(words: string[]): string {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

/** A number of bytes as `slimmoa plan` writes it: `1.5 GiB`, or `12 MiB` below a tenth of a GiB. */
export function bytesInWords(count: number): string {
  return count >= GIB / 10 ? `${(count / GIB).toFixed(1)} GiB` : `${(count / MIB).toFixed(0)} MiB`;
}
