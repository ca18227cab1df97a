/** Moves the times of a stream. Pure. */
import type { Chunk } from "./chunks.ts";

/** A chunk whose stages began so many seconds later: for an answer whose work began before its stream. */
export function later(chunk: Chunk, byS: number): Chunk {
  const { moa } = chunk;
  if (byS === 0 || !moa) return chunk;
  if (moa.type === "stage.started") return { ...chunk, moa: { ...moa, at_s: moa.at_s + byS } };
  if (moa.type !== "summary") return chunk;
  return { ...chunk, moa: { ...moa, stages: moa.stages.map((stage) => ({ ...stage, at_s: stage.at_s + byS })) } };
}
