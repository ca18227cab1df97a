/** The chats: the one that is open, and those that the browser keeps. */
import { computed, signal } from "@preact/signals";
import { isOver, stopped } from "../answer/reduce.ts";
import { turnsOf } from "../answer/turns.ts";
import type { Answer, Chat, Vote } from "../answer/types.ts";
import { newId } from "./ids.ts";
import { openStore, type ChatAbout, type ChatStore } from "../store/chats.ts";

const TITLE_CHARACTERS = 60;

export const chat = signal<Chat>(emptyChat());
export const listed = signal<ChatAbout[]>([]);
/** Whether the browser keeps chats when the page is closed; null until that is known. */
export const isLasting = signal<boolean | null>(null);
export const storeProblem = signal<string | null>(null);
/** The version that was chosen of turns with several answers: the answer's id, by the turn's id. */
export const chosenVersions = signal<ReadonlyMap<string, string>>(new Map());

export const turns = computed(() => turnsOf(chat.value.answers));

let store: ChatStore | null = null;

function emptyChat(): Chat {
  return { id: newId(), title: "", createdAt: Date.now(), answers: [], votes: [] };
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

async function refreshList(): Promise<void> {
  if (!store) return;
  listed.value = await store.list();
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

/** All chats in full, the newest first. */
export async function allChats(): Promise<Chat[]> {
  const ids = (await store?.list())?.map(({ id }) => id) ?? [];
  const found = await Promise.all(ids.map((id) => store?.get(id)));
  return found.filter((one) => one != null);
}

/** Keep chats of a file. A chat that is there already is replaced. */
export async function addChats(more: readonly Chat[]): Promise<void> {
  for (const one of more) await store?.put(one);
  const open = more.find(({ id }) => id === chat.peek().id);
  if (open) chat.value = open;
  await refreshList();
}

export async function removeAllChats(): Promise<void> {
  newChat();
  unfinished.clear();
  await store?.removeAll();
  await refreshList();
}

export async function removeChat(id: string): Promise<void> {
  if (chat.peek().id === id) newChat();
  unfinished.delete(id); // an answer that is still written has no chat any more, and is not kept
  await store?.remove(id);
  await refreshList();
}

/** Put a new state of an answer into its chat. The last version of a turn is the one that is shown. */
export function putAnswer(chatId: string, answer: Answer): void {
  const target = chatOf(chatId);
  if (!target) return;
  const next = withAnswer(target, answer);
  if (chat.peek().id === chatId) chat.value = next;
  else unfinished.set(chatId, next);
  if (next.answers.length > target.answers.length) chosenVersions.value = new Map();
}

/** Keep what there is of an answer that is being written, in case that the page is closed. */
export function saveProgress(chatId: string, answer: Answer): void {
  const target = chatOf(chatId);
  if (target) void store?.put(withAnswer(target, answer)).catch(noteStoreProblem);
}

function chatOf(chatId: string): Chat | undefined {
  return chat.peek().id === chatId ? chat.peek() : unfinished.get(chatId);
}

function withAnswer(target: Chat, answer: Answer): Chat {
  const isKnown = target.answers.some(({ id }) => id === answer.id);
  const answers = isKnown
    ? target.answers.map((known) => (known.id === answer.id ? answer : known))
    : [...target.answers, answer];
  return { ...target, title: target.title || titleOf(answer.question), answers };
}

export function putVote(vote: Vote): void {
  chat.value = { ...chat.peek(), votes: [...chat.peek().votes, vote] };
  saveChat(chat.peek().id);
}

export function saveChat(chatId: string): void {
  const target = chatOf(chatId);
  if (!target || !store) return;
  if (chat.peek().id === chatId) remember(chatId);
  else if (target.answers.every(isOver)) unfinished.delete(chatId);
  const { id, title, createdAt, answers } = target;
  const others = listed.peek().filter((known) => known.id !== id);
  const about = { id, title, createdAt, answers: answers.length };
  listed.value = [about, ...others].sort((a, b) => b.createdAt - a.createdAt);
  store.put(target).catch(noteStoreProblem);
}

function noteStoreProblem(error: unknown): void {
  storeProblem.value = error instanceof Error ? error.message : String(error);
}

function titleOf(question: string): string {
  const line = question.trim().split("\n", 1)[0] ?? "";
  return line.length > TITLE_CHARACTERS ? `${line.slice(0, TITLE_CHARACTERS - 1)}…` : line;
}

/** Keep the open chat in the address, so that a reload opens it again. The address has its id alone. */
function remember(id: string): void {
  history.replaceState(null, "", `#${id}`);
}
