import type { Answer, Chat, Vote } from "../answer/types.ts";
export const Compare = (_: { answer: Answer; chat: Chat; onVote: (vote: Vote) => void }) => <p>compare</p>;
