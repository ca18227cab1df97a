/**
 * The chats that this browser keeps, in IndexedDB. The server keeps nothing.
 *
 * Where the browser gives no database, as in private windows of some browsers, the chats stay in memory, and
 * `lasting` says so.
 */
import { clear, createStore, delMany, getMany, keys, promisifyRequest, setMany, get, type UseStore } from "idb-keyval";

import type { Chat } from "../answer/types.ts";

/** What the list of chats shows. */
export interface ChatAbout {
  id: string;
  title: string;
  /** Milliseconds since 1970. */
  createdAt: number;
  /** How many answers the chat has. */
  answers: number;
}

export interface ChatStore {
  /** Whether the chats are still there after the window is closed. */
  readonly lasting: boolean;
  /** All chats, the newest first. */
  list(): Promise<ChatAbout[]>;
  /** One whole chat; null if there is none with this id. */
  get(id: string): Promise<Chat | null>;
  /** Keep a chat, in place of the one with the same id. */
  put(chat: Chat): Promise<void>;
  remove(id: string): Promise<void>;
  removeAll(): Promise<void>;
}

/** A browser that has not opened its database after so many milliseconds will not open it. */
const OPENS_WITHIN_MS = 3_000;
const CHAT = "chat:";
const ABOUT = "about:";

/** Open the store of this browser. */
export async function openStore(): Promise<ChatStore> {
  try {
    const store = createStore("slimmoa", "chats");
    await Promise.race([store("readwrite", (each) => promisifyRequest(each.count())), tooLate()]);
    return new LastingStore(store);
  } catch {
    return new MemoryStore();
  }
}

function tooLate(): Promise<never> {
  return new Promise((_, refuse) => {
    setTimeout(() => refuse(new Error("the browser does not open its database")), OPENS_WITHIN_MS);
  });
}

/** Each chat has two entries: the chat, and the little that the list needs. Both change in one transaction. */
class LastingStore implements ChatStore {
  readonly lasting = true;

  constructor(private readonly store: UseStore) {}

  async list(): Promise<ChatAbout[]> {
    const names = (await keys<string>(this.store)).filter((name) => name.startsWith(ABOUT));
    return newestFirst(await getMany<ChatAbout>(names, this.store));
  }

  async get(id: string): Promise<Chat | null> {
    return (await get<Chat>(CHAT + id, this.store)) ?? null;
  }

  async put(chat: Chat): Promise<void> {
    try {
      await setMany(
        [
          [CHAT + chat.id, chat],
          [ABOUT + chat.id, about(chat)],
        ],
        this.store,
      );
    } catch (error) {
      throw new Error(problemOf(error), { cause: error });
    }
  }

  async remove(id: string): Promise<void> {
    await delMany([CHAT + id, ABOUT + id], this.store);
  }

  async removeAll(): Promise<void> {
    await clear(this.store);
  }
}

/** Chats for as long as the window is open. */
export class MemoryStore implements ChatStore {
  readonly lasting = false;
  private readonly chats = new Map<string, Chat>();

  async list(): Promise<ChatAbout[]> {
    return newestFirst([...this.chats.values()].map(about));
  }

  async get(id: string): Promise<Chat | null> {
    const chat = this.chats.get(id);
    return chat ? structuredClone(chat) : null;
  }

  async put(chat: Chat): Promise<void> {
    this.chats.set(chat.id, structuredClone(chat));
  }

  async remove(id: string): Promise<void> {
    this.chats.delete(id);
  }

  async removeAll(): Promise<void> {
    this.chats.clear();
  }
}

function about({ id, title, createdAt, answers }: Chat): ChatAbout {
  return { id, title, createdAt, answers: answers.length };
}

function newestFirst(chats: (ChatAbout | undefined)[]): ChatAbout[] {
  return chats.filter((chat) => chat !== undefined).sort((a, b) => b.createdAt - a.createdAt);
}

function problemOf(error: unknown): string {
  const name = error instanceof DOMException ? error.name : "";
  if (name === "QuotaExceededError") {
    return "This browser has no room for more chats. Export the chats that you want to keep, and delete some.";
  }
  return `The browser could not keep the chat${error instanceof Error ? `: ${error.message}` : ""}.`;
}
