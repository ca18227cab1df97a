import type { Answer } from "../answer/types.ts";
export const Waterfall = (_: { answer: Answer; limits: { quorum: number; grace_s: number | null; layer_deadline_s: number; deadline_s: number } | null; nowS: number | null }) => <p>waterfall</p>;
