/** The whole page. */
import { useEffect, useRef } from "preact/hooks";
import { shownVersion } from "../answer/turns.ts";
import type { Answer } from "../answer/types.ts";
import { announcement } from "../model/announcements.ts";
import { retryRefused } from "../model/asking.ts";
import { chat, chosenVersions, putVote, turns } from "../model/chats.ts";
import { setKey } from "../model/key.ts";
import { keyWanted, loadModels, state, stateProblem } from "../model/server.ts";
import { ChatList } from "./chat_list.tsx";
import { Composer, COMPOSER } from "./composer.tsx";
import { Conversation } from "./conversation.tsx";
import { Dialog } from "./dialog.tsx";
import { Icon } from "./icons.tsx";
import { KeyDialog } from "./key_dialog.tsx";
import { CardPanel, Compare, ExportDialog, FuseDialog, HelpDialog } from "./parts.ts";
import { TopBar } from "./top_bar.tsx";
import { dialog, isCardOpen, isChatsOpen, isWide } from "./ui.ts";

export function App() {
  return (
    <div class="page">
      <TopBar />
      <div class="middle">
        {isChatsOpen.value && <ChatList />}
        <div class="center">
          <Conversation />
          <footer data-region="composer" aria-label="Question" class="bottom">
            <Composer />
          </footer>
        </div>
        {isCardOpen.value && <CardAside />}
      </div>
      <OpenDialog />
      <div class="hidden" role="status" aria-live="polite">
        {announcement.value}
      </div>
    </div>
  );
}

function CardAside() {
  const ref = useRef<HTMLElement>(null);
  useEffect(() => {
    // On a narrow page the panel covers everything else.
    if (!isWide.peek()) ref.current?.focus();
  }, []);
  return (
    <aside class="panel card-panel" data-region="card" tabIndex={-1} ref={ref} aria-label="Card">
      <header class="panel-head">
        <h2>Card</h2>
        <button
          type="button"
          class="quiet square small"
          aria-label="Close the panel of the card"
          onClick={() => (isCardOpen.value = false)}
        >
          <Icon name="close" />
        </button>
      </header>
      <CardPanel state={state.value} problem={stateProblem.value} />
    </aside>
  );
}

function OpenDialog() {
  const open = dialog.value;
  const close = () => {
    dialog.value = null;
    keyWanted.value = null;
    document.getElementById(COMPOSER)?.focus();
  };
  if (keyWanted.value !== null || open?.name === "key") {
    return <KeyDialog wanted={keyWanted.value} onClose={close} onKey={(...chosen) => void useKey(close, ...chosen)} />;
  }
  if (open?.name === "help") return <HelpDialog onClose={close} />;
  if (open?.name === "export") return <ExportDialog onClose={close} />;
  const answer = open?.answerId === undefined ? undefined : answerOf(open.answerId);
  if (!open || !answer) return null;
  if (open.name === "fuse") return <FuseDialog answer={answer} onClose={close} />;
  return (
    <Dialog title="Compare" wide onClose={close}>
      <Compare answer={answer} chat={chat.value} onVote={putVote} />
    </Dialog>
  );
}

async function useKey(close: () => void, typed: string, stays: boolean): Promise<void> {
  close();
  setKey(typed, stays);
  await loadModels();
  if (keyWanted.peek() === null) retryRefused();
}

function answerOf(id: string): Answer | undefined {
  const turn = turns.value.find(({ versions }) => versions.some((version) => version.id === id));
  return turn?.versions.find((version) => version.id === id) ?? (turn && shownVersion(turn, chosenVersions.value));
}
