/** Blind comparisons: which pairs there are, in which order they are shown, and what gives a text away. */
import type { Answer, Chat, Proposal, Vote } from "../answer/types.ts";

/** Names of families of models; a text that has one may tell who wrote it. */
const FAMILIES =
  "anthropic chatgpt claude cohere deepseek gemini gemma gpt internlm kimi llama mistral mixtral nemotron olmo openai qwen smollm vicuna wizardlm".split(
    " ",
  );

/** The proposals with which an answer can be compared: complete, and not the very same text. */
export function comparable(answer: Answer): Proposal[] {
  return answer.proposals.filter(({ phase, text }) => phase === "done" && text.trim() !== "" && text.trim() !== answer.text.trim());
}

/** Whether an answer is complete, so that it can be compared. */
export function isComplete(answer: Answer): boolean {
  return answer.phase === "done" && answer.text.trim() !== "";
}

/** The vote on an answer and a proposal, if there is one. */
export function voteOn(chat: Chat, answer: Answer, { layer, place }: Proposal): Vote | undefined {
  return chat.votes.find((vote) => vote.answerId === answer.id && vote.member.layer === layer && vote.member.place === place);
}

/** Draws one of several things, each as likely as the others. */
export function drawn<T>(from: readonly T[]): T {
  // Numbers beyond the last multiple of the length would make the first things more likely.
  const limit = Math.floor(2 ** 32 / from.length) * from.length;
  const number = new Uint32Array(1);
  do crypto.getRandomValues(number);
  while (number[0]! >= limit);
  return from[number[0]! % from.length]!;
}

/**
 * Whether a text names a model, and so may tell who wrote it.
 *
 * Names that the question has are left out: who asks about llamas gets answers with llamas.
 *
 * @param models the names of the models in the recipe
 */
export function namesAModel(text: string, models: Iterable<string>, question: string): boolean {
  const own = [...models].flatMap((name) => [name, ...name.split(/[-_/.:\s\d]+/)]);
  const names = new Set([...FAMILIES, ...own].map((name) => name.toLowerCase()).filter((name) => name.length > 1));
  return [...names].some((name) => isNamed(name, text) && !isNamed(name, question));
}

/** Parts of models' names that are words of their own and give nobody away. */
const ORDINARY = new Set(
  "instruct chat base it tiny small medium large mini big awq gptq gguf int fp model writer quick slow fast the".split(" "),
);

function isNamed(name: string, text: string): boolean {
  if (ORDINARY.has(name)) return false;
  const pattern = name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return new RegExp(`(?<![\\p{L}\\p{N}])${pattern}(?![\\p{L}])`, "iu").test(text);
}
