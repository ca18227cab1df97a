import type { Chat } from "../answer/types.ts";
export interface ChatStore { lasting: boolean; list(): Promise<Chat[]>; get(id: string): Promise<Chat | undefined>; put(chat: Chat): Promise<void>; remove(id: string): Promise<void> }
export const openStore = async (): Promise<ChatStore> => { const kept = new Map<string, Chat>(); return { lasting: false, list: async () => [...kept.values()], get: async (id) => kept.get(id), put: async (chat) => void kept.set(chat.id, chat), remove: async (id) => void kept.delete(id) }; };
