/** When each call of an answer waited, read and wrote: a drawing, and a table with the same figures. */
import { useId } from "preact/hooks";

import type { Answer } from "../answer/types.ts";
import { secondsInWords } from "../text/seconds.ts";
import { calls, endOf, isRunning, marks, ticks, type Call, type Doing, type Limits, type Mark } from "./calls.ts";
import { Patterns, patternOf } from "./patterns.tsx";
import "./waterfall.css";

const MARK_ROW = 18;
const ROW = 44;
const BAR = 14;
const AXIS = 24;
const LEGEND: Doing[] = ["waits", "reads", "waits or reads", "thinks", "writes", "reads and writes"];

interface WaterfallProps {
  answer: Answer;
  /** The limits of the recipe; null if they are unknown. */
  limits: Limits | null;
  /** Seconds since the mixture began to work on the request, while it works; else null. */
  nowS: number | null;
}

/** The waterfall of an answer's calls. */
export function Waterfall({ answer, limits, nowS }: WaterfallProps) {
  const id = useId();
  const rows = calls(answer, nowS);
  const endS = endOf(answer, rows, nowS);
  const limitsThen = marks(answer, limits, endS);
  if (rows.length === 0) return <p class="waterfall-empty">No call has begun yet.</p>;
  return (
    <figure class="waterfall">
      <Drawing id={id} rows={rows} endS={endS} limits={limitsThen} running={isRunning(answer)} />
      <Legend id={id} rows={rows} />
      <LimitsInWords limits={limitsThen} />
      <details>
        <summary>The same figures as a table</summary>
        <Figures rows={rows} />
      </details>
    </figure>
  );
}

interface DrawingProps {
  id: string;
  rows: Call[];
  endS: number;
  limits: Mark[];
  running: boolean;
}

/** The end of a grace that still runs belongs on the axis: the reader waits for it. */
function axisEnd({ endS, limits, running }: DrawingProps): number {
  const graces = running ? limits.filter((mark) => mark.kind === "grace" && mark.ahead) : [];
  return Math.max(endS, 0.001, ...graces.map((mark) => mark.atS));
}

/**
 * Marks in the order of their rows, from the top. The words of early marks stand to the right of their lines, those of
 * late marks to the left, and in this order few lines run through the words of others.
 */
function inRows(limits: Mark[], isLate: (mark: Mark) => boolean): Mark[] {
  return [...limits.filter((mark) => !isLate(mark)), ...limits.filter(isLate).reverse()];
}

function Drawing(props: DrawingProps) {
  const { id, rows, limits } = props;
  const lengthS = axisEnd(props);
  const across = (atS: number): string => `${((Math.min(atS, lengthS) / lengthS) * 100).toFixed(3)}%`;
  const isLate = (mark: Mark): boolean => mark.atS > lengthS / 2;
  const drawn = inRows(limits.filter((mark) => mark.atS <= lengthS), isLate);
  const top = drawn.length * MARK_ROW + 4;
  const bottom = top + rows.length * ROW;
  return (
    <svg
      class="waterfall-drawing"
      width="100%"
      height={bottom + AXIS}
      role="img"
      aria-label={`When ${rows.length} calls waited, read and wrote, over ${secondsInWords(lengthS)}. The table below has the figures.`}
    >
      <Patterns id={id} />
      {ticks(lengthS).map((at) => (
        <Tick key={at} at={at} x={across(at)} top={top} bottom={bottom} share={at / lengthS} />
      ))}
      {rows.map((row, n) => (
        <Bars key={`${row.title} ${n}`} id={id} row={row} y={top + n * ROW + 24} lengthS={lengthS} />
      ))}
      {drawn.map((mark, n) => (
        <line key={mark.words} class={`waterfall-mark waterfall-${mark.kind}`} x1={across(mark.atS)} x2={across(mark.atS)} y1={n * MARK_ROW + 4} y2={bottom} />
      ))}
      {rows.map((row, n) => (
        <RowLabel key={`${row.title} ${n}`} row={row} y={top + n * ROW + 18} />
      ))}
      {drawn.map((mark, n) => (
        <text key={mark.words} x={across(mark.atS)} y={n * MARK_ROW + 13} dx={isLate(mark) ? -5 : 5} text-anchor={isLate(mark) ? "end" : "start"}>
          {mark.words}
        </text>
      ))}
    </svg>
  );
}

interface BarsProps {
  id: string;
  row: Call;
  y: number;
  lengthS: number;
}

function Bars({ id, row, y, lengthS }: BarsProps) {
  const share = (atS: number): number => (Math.min(atS, lengthS) / lengthS) * 100;
  return (
    <g>
      {row.spans.map(({ doing, from, to }) => (
        <rect
          key={doing}
          class="waterfall-bar"
          x={`${share(from).toFixed(3)}%`}
          y={y}
          width={`${(share(to) - share(from)).toFixed(3)}%`}
          height={BAR}
          fill={patternOf(id, doing)}
        />
      ))}
    </g>
  );
}

function RowLabel({ row, y }: { row: Call; y: number }) {
  const took = row.endedS === null ? "" : `, ${secondsInWords(row.endedS - row.startedS)}`;
  return (
    <text x="0" y={y} class="waterfall-label">
      <tspan class="waterfall-model">{row.model}</tspan>
      <tspan class={row.bad ? "waterfall-bad" : "waterfall-muted"}>{`  ${row.title}: ${shortened(row.outcome)}${took}`}</tspan>
    </text>
  );
}

interface TickProps {
  at: number;
  x: string;
  top: number;
  bottom: number;
  share: number;
}

function Tick({ at, x, top, bottom, share }: TickProps) {
  const anchor = share < 0.04 ? "start" : share > 0.96 ? "end" : "middle";
  return (
    <g class="waterfall-tick">
      <line x1={x} x2={x} y1={top} y2={bottom} />
      <text x={x} y={bottom + 16} text-anchor={anchor}>
        {`${at} s`}
      </text>
    </g>
  );
}

/** What the patterns mean: only those that the drawing has. */
function Legend({ id, rows }: { id: string; rows: Call[] }) {
  const seen = new Set(rows.flatMap((row) => row.spans.map((span) => span.doing)));
  return (
    <ul class="waterfall-legend" aria-label="What the patterns mean">
      {LEGEND.filter((doing) => seen.has(doing)).map((doing) => (
        <li key={doing}>
          <svg width="28" height="12" aria-hidden="true">
            <rect class="waterfall-bar" width="28" height="12" fill={patternOf(id, doing)} />
          </svg>
          {doing}
        </li>
      ))}
    </ul>
  );
}

function LimitsInWords({ limits }: { limits: Mark[] }) {
  if (limits.length === 0) return null;
  return (
    <p class="waterfall-limits">
      {limits.map((mark) => `${mark.words} at ${secondsInWords(mark.atS)}`).join("; ").replace(/^./, (first) => first.toUpperCase())}.
    </p>
  );
}

function Figures({ rows }: { rows: Call[] }) {
  const long = (row: Call, doing: Doing): string => {
    const found = row.spans.find((span) => span.doing === doing);
    return found ? secondsInWords(found.to - found.from) : "";
  };
  const columns = LEGEND.filter((doing) => rows.some((row) => long(row, doing)));
  return (
    <div class="waterfall-table" role="group" aria-label="Calls and their times" tabIndex={0}>
      <table>
        <thead>
          <tr>
            <th scope="col">call</th>
            <th scope="col">model</th>
            <th scope="col">begins at</th>
            {columns.map((doing) => (
              <th key={doing} scope="col">
                {doing}
              </th>
            ))}
            <th scope="col">ends at</th>
            <th scope="col">tokens</th>
            <th scope="col">outcome</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row, n) => (
            <tr key={`${row.title} ${n}`}>
              <th scope="row">{row.title}</th>
              <td>{row.model}</td>
              <td>{secondsInWords(row.startedS)}</td>
              {columns.map((doing) => (
                <td key={doing}>{long(row, doing)}</td>
              ))}
              <td>{row.endedS === null ? "" : secondsInWords(row.endedS)}</td>
              <td>{row.tokens ?? ""}</td>
              <td>{row.outcome}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function shortened(words: string): string {
  return words.length > 60 ? `${words.slice(0, 57)}...` : words;
}
