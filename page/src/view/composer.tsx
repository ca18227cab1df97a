/** Where a person writes the question. The focus stays here. */
import { useEffect, useRef, useState } from "preact/hooks";
import { ask, running } from "../model/asking.ts";
import { chat } from "../model/chats.ts";
import { chosenModel } from "../model/server.ts";
import { Icon } from "./icons.tsx";
import { tab } from "./ui.ts";

export const COMPOSER = "composer";

export function Composer() {
  const [text, setText] = useState("");
  const ref = useRef<HTMLTextAreaElement>(null);
  const live = running.value;
  const isElsewhere = live !== null && live.chatId !== chat.value.id;
  const canSend = text.trim() !== "" && live === null && chosenModel.value !== "";
  useEffect(() => ref.current?.focus(), [chat.value.id]);
  useEffect(() => fit(ref.current), [text]);

  const send = () => {
    if (!canSend) return;
    tab.value = "answer";
    ask(text.trim());
    setText("");
  };
  const onKeyDown = (event: KeyboardEvent) => {
    // Enter also ends the typing of a word in scripts that are composed, such as Japanese.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      {isElsewhere && (
        <p class="muted said">An answer is being written in another chat. Stop it, or wait for its end.</p>
      )}
      <div class="composer-box">
        <textarea
          ref={ref}
          id={COMPOSER}
          rows={1}
          value={text}
          placeholder={chosenModel.value ? `Ask ${chosenModel.value}` : "Ask"}
          aria-label="Question"
          enterkeyhint="send"
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={onKeyDown}
        />
        {live ? (
          <button
            type="button"
            class="round"
            aria-label="Stop the answer"
            title="Stop (Esc)"
            onClick={() => live.stop()}
          >
            <Icon name="stop" />
          </button>
        ) : (
          <button type="submit" class="round" aria-label="Send the question" title="Send (Enter)" disabled={!canSend}>
            <Icon name="send" />
          </button>
        )}
      </div>
    </form>
  );
}

/** Make the field as high as its text, up to the height that the style allows. */
function fit(field: HTMLTextAreaElement | null): void {
  if (!field || CSS.supports("field-sizing", "content")) return;
  field.style.setProperty("height", "auto");
  field.style.setProperty("height", `${field.scrollHeight}px`);
}
