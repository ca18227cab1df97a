/**
 * Shares out the time of the browser's main thread: all texts of the page together may use a few milliseconds
 * of each frame, so that no growing text makes the page stumble, however many grow at once.
 */

/** Something that works in small steps. */
export interface Worker {
  /** Work until about `until` (in `performance.now()`). Says whether anything is left to do. */
  work(until: number): boolean;
}

/** Milliseconds of each frame that may be used. */
const BUDGET_MS = 8;
/** After so many milliseconds the next frame has begun. */
const FRAME_MS = 16;

const waiting = new Set<Worker>();
let asked = false;
let frameBegan = -FRAME_MS;

/** Let a worker do its work: at once if this frame has time left, and in the frames that follow. */
export function schedule(worker: Worker): void {
  waiting.add(worker);
  workOff();
}

/** Forget a worker. */
export function unschedule(worker: Worker): void {
  waiting.delete(worker);
}

function workOff(): void {
  const now = performance.now();
  if (now - frameBegan >= FRAME_MS) frameBegan = now;
  const until = frameBegan + BUDGET_MS;
  // Whoever has work left goes to the end of the queue, so that no text waits for another text's end.
  for (const worker of [...waiting]) {
    if (performance.now() >= until) break;
    waiting.delete(worker);
    if (worker.work(until)) waiting.add(worker);
  }
  if (waiting.size > 0 && !asked) {
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      workOff();
    });
  }
}
