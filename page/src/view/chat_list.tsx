/** The chats that the browser keeps, by day. */
import { useEffect, useRef } from "preact/hooks";
import { stopIn } from "../model/asking.ts";
import { chat, isLasting, listed, openChat, removeChat, storeProblem } from "../model/chats.ts";
import type { ChatAbout } from "../store/chats.ts";
import { Icon } from "./icons.tsx";
import { isChatsOpen, openDialog } from "./ui.ts";

/** Where the list lies over the conversation: see layout.css. */
const liesOver = matchMedia("(max-width: 100rem)");

export function ChatList() {
  const ref = useRef<HTMLElement>(null);
  useEffect(() => ref.current?.focus(), []);
  const close = () => (isChatsOpen.value = false);
  return (
    <aside class="panel chats" data-region="chats" tabIndex={-1} ref={ref} aria-label="Chats">
      <header class="panel-head">
        <h2>Chats</h2>
        <button type="button" class="quiet square small" aria-label="Close the list of chats" onClick={close}>
          <Icon name="close" />
        </button>
      </header>
      {storeProblem.value && <p class="note bad">{storeProblem.value}</p>}
      {isLasting.value === false && (
        <p class="note warn">
          This browser keeps nothing for this page, as in a private window. Chats are gone when the page is closed.
        </p>
      )}
      {listed.value.length === 0 && <p class="muted">There are no chats yet.</p>}
      {byDay(listed.value).map(([day, chats]) => (
        <section key={day} aria-label={day}>
          <h3 class="day">{day}</h3>
          <ul class="chat-rows">
            {chats.map((one) => (
              <Row key={one.id} one={one} />
            ))}
          </ul>
        </section>
      ))}
      <button type="button" class="quiet" onClick={() => openDialog("export")}>
        <Icon name="export" />
        Export and import
      </button>
    </aside>
  );
}

function Row({ one }: { one: ChatAbout }) {
  const isOpen = chat.value.id === one.id;
  const title = one.title || "Chat without a question";
  return (
    <li class="chat-row">
      <button type="button" class="chat-name" aria-current={isOpen ? "true" : undefined} onClick={() => choose(one.id)}>
        {title}
      </button>
      <button
        type="button"
        class="quiet square small"
        aria-label={`Delete the chat: ${title}`}
        onClick={() => remove(one.id, title)}
      >
        <Icon name="bin" />
      </button>
    </li>
  );
}

function choose(id: string): void {
  void openChat(id);
  if (liesOver.matches) isChatsOpen.value = false;
}

function remove(id: string, title: string): void {
  if (!confirm(`Delete the chat "${title}"? It cannot be brought back.`)) return;
  stopIn(id);
  void removeChat(id);
}

/** Chats by the day on which they began, the newest first. */
export function byDay(chats: readonly ChatAbout[], now: Date = new Date()): [string, ChatAbout[]][] {
  const days = new Map<string, ChatAbout[]>();
  for (const one of chats) {
    const day = dayName(new Date(one.createdAt), now);
    days.set(day, [...(days.get(day) ?? []), one]);
  }
  return [...days];
}

function dayName(date: Date, now: Date): string {
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime();
  const days = Math.ceil((midnight - date.getTime()) / 86_400_000);
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  return date.toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric" });
}
