/** Collects what comes many times a second, and passes it on a few times a second. */

/**
 * Least time between two passes. Text that grows 20 times a second looks smooth. A pass is a task of its own, and
 * not a part of the browser's frame, so that neither of the two gets long on a slow machine. A page that nobody
 * sees passes on once a second, because browsers slow down its timers.
 */
const PAUSE_MS = 50;

export class Batches<T> {
  private items: T[] = [];
  private timer: ReturnType<typeof setTimeout> | null = null;
  private last = -Infinity;

  constructor(private readonly pass: (items: T[]) => void) {}

  add(more: readonly T[]): void {
    if (more.length === 0) return;
    this.items.push(...more);
    this.timer ??= setTimeout(() => this.flush(), Math.max(0, this.last + PAUSE_MS - performance.now()));
  }

  /** Pass on at once what has been collected. */
  flush(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
    if (this.items.length === 0) return;
    const items = this.items;
    this.items = [];
    this.pass(items);
    // A pass that took long is followed by as long a pause.
    this.last = performance.now();
  }
}
