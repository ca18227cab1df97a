/** Collects what comes many times a second, and passes it on once for each frame that the browser draws. */

/** Least time between two passes. Text that grows 20 times a second looks smooth, and a slow machine keeps time. */
const PAUSE_MS = 50;
/** Time between two passes while nobody sees the page: browsers draw no frames then. */
const HIDDEN_MS = 500;

export class Frames<T> {
  private items: T[] = [];
  private timer: ReturnType<typeof setTimeout> | null = null;
  private frame: number | null = null;
  private last = -Infinity;

  constructor(private readonly pass: (items: T[]) => void) {}

  add(more: readonly T[]): void {
    if (more.length === 0) return;
    this.items.push(...more);
    if (this.timer !== null || this.frame !== null) return;
    const wait = document.hidden ? HIDDEN_MS : Math.max(0, this.last + PAUSE_MS - performance.now());
    this.timer = setTimeout(() => this.onTime(), wait);
  }

  /** Pass on at once what has been collected. */
  flush(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    if (this.frame !== null) cancelAnimationFrame(this.frame);
    this.timer = this.frame = null;
    if (this.items.length === 0) return;
    const items = this.items;
    this.items = [];
    this.last = performance.now();
    this.pass(items);
  }

  private onTime(): void {
    this.timer = null;
    if (document.hidden) return this.flush();
    this.frame = requestAnimationFrame(() => this.flush());
    // A page that is hidden just now draws no frame.
    this.timer = setTimeout(() => this.flush(), HIDDEN_MS);
  }
}
