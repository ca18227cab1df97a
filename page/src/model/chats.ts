/** The chats: the one that is open, and those that the browser keeps. */
import { computed, signal } from "@preact/signals";
import { isOver, stopped } from "../answer/reduce.ts";
import { turnsOf } from "../answer/turns.ts";
import type { Answer, Chat, Vote } from "../answer/types.ts";
import { openStore, type ChatStore } from "../store/chats.ts";

const TITLE_CHARACTERS = 60;

/** A chat in the list of chats. */
export interface Listed {
  id: string;
  title: string;
  createdAt: number;
}

export const chat = signal<Chat>(emptyChat());
export const listed = signal<Listed[]>([]);
/** Whether the browser keeps chats when the page is closed; null until that is known. */
export const isLasting = signal<boolean | null>(null);
export const storeProblem = signal<string | null>(null);
/** The version that was chosen of turns with several answers: the answer's id, by the turn's id. */
export const chosenVersions = signal<ReadonlyMap<string, string>>(new Map());

export const turns = computed(() => turnsOf(chat.value.answers));

let store: ChatStore | null = null;

function emptyChat(): Chat {
  return { id: crypto.randomUUID(), title: "", createdAt: Date.now(), answers: [], votes: [] };
}

export async function startChats(): Promise<void> {
  try {
    store = await openStore();
    isLasting.value = store.lasting;
    await refreshList();
    const last = location.hash.slice(1);
    if (last) await openChat(last);
  } catch (error) {
    isLasting.value = false;
    storeProblem.value = `The browser does not keep chats: ${String(error)}`;
  }
}

export async function refreshList(): Promise<void> {
  if (!store) return;
  const all = await store.list();
  listed.value = all
    .map(({ id, title, createdAt }) => ({ id, title, createdAt }))
    .sort((a, b) => b.createdAt - a.createdAt);
}

export function newChat(): void {
  leaveChat();
  chat.value = emptyChat();
  chosenVersions.value = new Map();
  history.replaceState(null, "", location.pathname + location.search);
}

export async function openChat(id: string): Promise<void> {
  if (id === chat.peek().id) return;
  const found = unfinished.get(id) ?? (await store?.get(id));
  if (!found) return;
  leaveChat();
  chat.value = unfinished.get(id) ?? withoutLoose(found);
  unfinished.delete(id);
  chosenVersions.value = new Map();
  remember(id);
}

/** Chats that were left while one of their answers was being written. */
const unfinished = new Map<string, Chat>();

function leaveChat(): void {
  const left = chat.peek();
  if (left.answers.some((answer) => !isOver(answer))) unfinished.set(left.id, left);
}

/** An answer that was being written when the page was closed is not written on. */
function withoutLoose(found: Chat): Chat {
  return { ...found, answers: found.answers.map((answer) => (isOver(answer) ? answer : stopped(answer))) };
}

export async function removeChat(id: string): Promise<void> {
  await store?.remove(id);
  if (chat.peek().id === id) newChat();
  await refreshList();
}

/** Put a new state of an answer into its chat. The last version of a turn is the one that is shown. */
export function putAnswer(chatId: string, answer: Answer): void {
  const open = chat.peek();
  const target = open.id === chatId ? open : unfinished.get(chatId);
  if (!target) return;
  const isKnown = target.answers.some(({ id }) => id === answer.id);
  const answers = isKnown
    ? target.answers.map((known) => (known.id === answer.id ? answer : known))
    : [...target.answers, answer];
  const next = { ...target, title: target.title || titleOf(answer.question), answers };
  if (open.id === chatId) chat.value = next;
  else unfinished.set(chatId, next);
  if (!isKnown) chosenVersions.value = new Map();
}

export function putVote(vote: Vote): void {
  chat.value = { ...chat.peek(), votes: [...chat.peek().votes, vote] };
  saveChat(chat.peek().id);
}

export function saveChat(chatId: string): void {
  const open = chat.peek();
  const target = open.id === chatId ? open : unfinished.get(chatId);
  if (!target || !store) return;
  if (open.id === chatId) remember(chatId);
  else if (target.answers.every(isOver)) unfinished.delete(chatId);
  const { id, title, createdAt } = target;
  if (!listed.peek().some((known) => known.id === id)) listed.value = [{ id, title, createdAt }, ...listed.peek()];
  store.put(target).catch((error: unknown) => {
    storeProblem.value = `The browser could not keep this chat: ${String(error)}`;
  });
}

function titleOf(question: string): string {
  const line = question.trim().split("\n", 1)[0] ?? "";
  return line.length > TITLE_CHARACTERS ? `${line.slice(0, TITLE_CHARACTERS - 1)}…` : line;
}

/** Keep the open chat in the address, so that a reload opens it again. The address has its id alone. */
function remember(id: string): void {
  history.replaceState(null, "", `#${id}`);
}
