/** The turns of the open chat. New text stays in view while the reader is at the end. */
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { running } from "../model/asking.ts";
import { chat, turns } from "../model/chats.ts";
import { Greeting } from "./greeting.tsx";
import { TurnView } from "./turn.tsx";
import { roomRem } from "./ui.ts";

/** Turns that are drawn. Earlier ones come on request, so that a long chat stays quick. */
const DRAWN = 20;
/** A reader who is this near to the end, in pixels, is at the end. */
const NEAR_PX = 80;

export function Conversation() {
  const scroller = useRef<HTMLDivElement>(null);
  const [drawn, setDrawn] = useState(DRAWN);
  const all = turns.value;
  const shown = all.slice(-drawn);
  useRoom(scroller);
  useFollow(scroller);
  useEffect(() => setDrawn(DRAWN), [chat.value.id]);
  return (
    <main class="conversation" ref={scroller} tabIndex={-1} data-region="conversation" aria-label="Conversation">
      <div class="turns" role="log" aria-live="off" aria-label="Answers">
        {all.length === 0 && <Greeting />}
        {all.length > shown.length && (
          <button type="button" class="quiet earlier" onClick={() => setDrawn(drawn + DRAWN)}>
            {`Show ${Math.min(DRAWN, all.length - shown.length)} earlier questions`}
          </button>
        )}
        {shown.map((turn) => (
          <TurnView key={turn.id} turn={turn} isCurrent={turn === all.at(-1)} />
        ))}
      </div>
    </main>
  );
}

/** Keep `roomRem` at the width of the conversation. */
function useRoom(scroller: { current: HTMLElement | null }): void {
  useLayoutEffect(() => {
    const box = scroller.current;
    if (!box) return;
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const measure = () => {
      const style = getComputedStyle(box.firstElementChild!);
      const inside = box.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
      roomRem.value = Math.floor(inside / rem);
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(box);
    return () => observer.disconnect();
  }, []);
}

function toEnd(box: HTMLElement): void {
  box.scrollTop = box.scrollHeight;
}

/** Scroll to a new question, and follow the answer while the reader stays at the end. */
function useFollow(scroller: { current: HTMLElement | null }): void {
  const atEnd = useRef(true);
  useEffect(() => {
    const box = scroller.current;
    if (!box) return;
    const look = () => (atEnd.current = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_PX);
    box.addEventListener("scroll", look, { passive: true });
    const observer = new ResizeObserver(() => atEnd.current && toEnd(box));
    observer.observe(box.firstElementChild!);
    return () => {
      box.removeEventListener("scroll", look);
      observer.disconnect();
    };
  }, []);
  const live = running.value;
  useLayoutEffect(() => {
    const box = scroller.current;
    if (!box) return;
    atEnd.current = true;
    toEnd(box);
  }, [chat.value.id, live]);
}
