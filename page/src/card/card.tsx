/** What the cards do at this moment: memory, who is awake, who waits for what, and the queue of turns. */
import { useId } from "preact/hooks";

import type { CardState, MemberState, ServerState } from "../api/state.ts";
import { secondsInWords } from "../text/seconds.ts";
import { bytesInWords, callsInWords, cardTitle, slotsOf, stateInWords, titleOf, waitInWords } from "./members.ts";
import { memoryParts, type Part } from "./memory.ts";
import { byLongestWait, why } from "./why.ts";
import "./card.css";

const ICONS: Record<string, string> = {
  resident: "●",
  asleep: "○",
  stopped: "○",
  "not started": "○",
  absent: "✕",
  failed: "✕",
};
const MOVING = "◐";
const LEGEND: [Part["use"], string][] = [
  ["awake", "awake"],
  ["moving", "comes or leaves"],
  ["asleep", "asleep"],
  ["failed", "failed"],
  ["free", "free"],
];

interface CardPanelProps {
  /** The state of the server; null before the first answer. */
  state: ServerState | null;
  /** Why there is no newer state; null if all is well. */
  problem: string | null;
}

/** The panel of all cards. */
export function CardPanel({ state, problem }: CardPanelProps) {
  return (
    <div class="cards">
      {problem !== null && (
        <p class="cards-problem">
          {problem}
          {state && " What follows was true before."}
        </p>
      )}
      {state === null ? problem === null && <p class="cards-muted">The server has not told its state yet.</p> : <Cards state={state} />}
    </div>
  );
}

function Cards({ state }: { state: ServerState }) {
  return (
    <>
      <ul class="cards-why" aria-label="Who waits, and for what">
        {why(state).map(({ words, bad }) => (
          <li key={words} class={bad ? "cards-bad" : undefined}>
            {bad && <span aria-hidden="true">⚠ </span>}
            {words}
          </li>
        ))}
      </ul>
      {state.cards.map((card) => (
        <Card key={`${card.node} ${card.gpus?.join() ?? "cpu"}`} card={card} />
      ))}
    </>
  );
}

function Card({ card }: { card: CardState }) {
  const awake = card.members.filter((member) => member.state === "resident").length;
  return (
    <div class="card">
      <h3>{cardTitle(card)}</h3>
      <p class="cards-muted">
        {card.total_bytes > 0 ? bytesInWords(card.total_bytes) : "The size of its memory is not known"}
        {`, ${awake} of ${card.members.length} awake`}
      </p>
      <Memory card={card} />
      <ol class="card-members">
        {card.members.map((member, n) => (
          <Member key={member.name} member={member} number={n + 1} />
        ))}
      </ol>
      {slotsOf(card)
        .filter((slot) => slot.length > 1)
        .map((slot) => (
          <Queue key={slot[0]!.slot} slot={slot} />
        ))}
      <Steps members={card.members} />
    </div>
  );
}

function Memory({ card }: { card: CardState }) {
  const id = useId();
  const parts = memoryParts(card);
  if (!parts.some((part) => part.use !== "free")) {
    return <p class="cards-muted">By the plan no model holds memory of this card now.</p>;
  }
  const total = parts.reduce((sum, part) => sum + part.bytes, 0);
  const words = parts.map((part) => (part.title ? `${part.title} ${part.use} ${bytesInWords(part.bytes)}` : `${bytesInWords(part.bytes)} free`));
  const uses = new Set(parts.map((part) => part.use));
  let before = 0;
  return (
    <>
      <svg class="card-memory" width="100%" height="30" role="img" aria-label={`Memory by the plan: ${words.join(", ")}`}>
        <Fills id={id} />
        {parts.map((part) => {
          const from = (before / total) * 100;
          const share = (part.bytes / total) * 100;
          before += part.bytes;
          return (
            <g key={part.number}>
              <rect class={`card-part card-${part.use}`} fill={fillOf(id, part.use)} x={`${from}%`} width={`${share}%`} y="0" height="30" />
              {part.number > 0 && share > 5 && (
                <text class={`card-number card-on-${part.use}`} x={`${from + share / 2}%`} y="20" text-anchor="middle">
                  {part.number}
                </text>
              )}
            </g>
          );
        })}
      </svg>
      <ul class="card-legend" aria-label="What the patterns mean">
        {LEGEND.filter(([use]) => uses.has(use)).map(([use, name]) => (
          <li key={use}>
            <svg width="20" height="12" aria-hidden="true">
              <rect class={`card-part card-${use}`} fill={fillOf(id, use)} width="20" height="12" />
            </svg>
            {name}
          </li>
        ))}
      </ul>
    </>
  );
}

/** The fill of a part in the drawing with this id; parts without a pattern get their colour from the style sheet. */
function fillOf(id: string, use: Part["use"]): string | undefined {
  return use === "awake" || use === "free" ? undefined : `url(#${id}-${use})`;
}

/** Patterns over the colours of the memory map of `slimmoa plan`. */
function Fills({ id }: { id: string }) {
  const pattern = { width: "8", height: "8", patternUnits: "userSpaceOnUse" as const };
  return (
    <defs>
      <pattern id={`${id}-moving`} {...pattern}>
        <rect class="card-moving-ground" width="8" height="8" />
        <path class="card-line" d="M-2 6 6-2M0 12 12 0" />
      </pattern>
      <pattern id={`${id}-asleep`} {...pattern}>
        <rect class="card-asleep-ground" width="8" height="8" />
        <circle class="card-dot" cx="2" cy="2" r="1" />
        <circle class="card-dot" cx="6" cy="6" r="1" />
      </pattern>
      <pattern id={`${id}-failed`} {...pattern}>
        <rect class="card-failed-ground" width="8" height="8" />
        <path class="card-line" d="M0 0 8 8M8 0 0 8" />
      </pattern>
    </defs>
  );
}

function Member({ member, number }: { member: MemberState; number: number }) {
  const bad = member.state === "failed" || member.state === "absent";
  return (
    <li>
      <span class="card-place" aria-hidden="true">
        {number}
      </span>
      <div>
        <div class="card-line-1">
          <strong>{titleOf(member)}</strong>
          <span class={bad ? "cards-bad" : member.state === "resident" ? "cards-good" : "cards-muted"}>
            <span aria-hidden="true">{ICONS[member.state] ?? MOVING} </span>
            {stateInWords(member)}
          </span>
        </div>
        <div class="cards-muted">{callsOf(member)}</div>
        {member.awake_bytes > 0 && (
          <div class="cards-muted">
            {`${bytesInWords(member.awake_bytes)} awake`}
            {member.asleep_bytes > 0 && `, ${bytesInWords(member.asleep_bytes)} asleep`}
          </div>
        )}
      </div>
    </li>
  );
}

function callsOf(member: MemberState): string {
  const works = member.in_flight > 0 ? `${callsInWords(member.in_flight)} in work` : "no call in work";
  return member.waiting > 0 ? `${works}; waiting: ${waitInWords(member)}` : works;
}

/** Who has the turn of a slot, and who likely gets it next. */
function Queue({ slot }: { slot: MemberState[] }) {
  const holder = slot.find((member) => member.turn !== "closed");
  const next = byLongestWait(slot).filter((member) => member !== holder && member.waiting > 0);
  return (
    <div class="card-queue">
      <h4>Queue of turns</h4>
      <p>
        {holder ? `${titleOf(holder)} has the turn${holder.turn === "closing" ? " and ends it" : ""}.` : "Nobody has the turn now."}
        {next.length === 0 && " Nobody else waits for it."}
      </p>
      {next.length > 0 && (
        <>
          <ol>
            {next.map((member) => (
              <li key={member.name}>{`${titleOf(member)}: ${waitInWords(member)}`}</li>
            ))}
          </ol>
          <p class="cards-muted">The longest queue is next, unless calls of another model have waited too long.</p>
        </>
      )}
    </div>
  );
}

/** How often engines came and went since the keeper began. */
function Steps({ members }: { members: MemberState[] }) {
  const times = (member: MemberState, verb: string): number => member.orders[verb] ?? 0;
  const seconds = (member: MemberState): number => Object.values(member.step_seconds).reduce((sum, each) => sum + each, 0);
  return (
    <details>
      <summary>Steps taken</summary>
      <div class="card-steps" role="group" aria-label="Steps taken" tabIndex={0}>
        <table>
          <thead>
            <tr>
              <th scope="col">model</th>
              <th scope="col">turns</th>
              <th scope="col">wakes</th>
              <th scope="col">sleeps</th>
              <th scope="col">starts</th>
              <th scope="col">stops</th>
              <th scope="col">all steps</th>
              <th scope="col">last step</th>
            </tr>
          </thead>
          <tbody>
            {members.map((member) => (
              <tr key={member.name}>
                <th scope="row">{titleOf(member)}</th>
                <td>{times(member, "open")}</td>
                <td>{times(member, "wake")}</td>
                <td>{times(member, "sleep")}</td>
                <td>{times(member, "start")}</td>
                <td>{times(member, "stop")}</td>
                <td>{secondsInWords(seconds(member))}</td>
                <td>{member.last_step_s === null ? "none yet" : secondsInWords(member.last_step_s)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}
