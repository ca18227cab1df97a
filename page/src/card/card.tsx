import type { ServerState } from "../api/state.ts";
export const CardPanel = ({ state, problem }: { state: ServerState | null; problem: string | null }) => <p>{problem ?? state?.cards[0]?.name}</p>;
