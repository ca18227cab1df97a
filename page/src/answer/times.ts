/** Seconds as people read them. Pure. */

/** `4.2 s`, `41 s`, `3 min 05 s`. */
export function seconds(value: number): string {
  const positive = Math.max(0, value);
  if (positive < 9.95) return `${positive.toFixed(1)} s`;
  const whole = Math.round(positive);
  if (whole < 60) return `${whole} s`;
  return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
}

/** Whole seconds that run: `41 s`, `3:05`. */
export function clock(value: number): string {
  const whole = Math.max(0, Math.floor(value));
  if (whole < 60) return `${whole} s`;
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
