/** Chats as files, and files as chats. */
import { useState } from "preact/hooks";
import type { Chat } from "../answer/types.ts";
import { running } from "../model/asking.ts";
import { addChats, allChats, chat, removeAllChats } from "../model/chats.ts";
import { chatAsJson, chatAsMarkdown, chatsAsJson, importChats, LARGEST_IMPORT, votesAsRows } from "../store/export.ts";
import { Dialog } from "./dialog.tsx";

/** Longest name of a file, without its ending. */
const NAME_CHARACTERS = 50;

export function ExportDialog({ onClose }: { onClose: () => void }) {
  const [withNamed, setWithNamed] = useState(false);
  const [said, setSaid] = useState<{ words: string; isBad: boolean } | null>(null);
  const isEmpty = chat.value.answers.length === 0;
  const attempt = async (work: () => Promise<string>) => {
    try {
      setSaid({ words: await work(), isBad: false });
    } catch (error) {
      setSaid({ words: error instanceof Error ? error.message : String(error), isBad: true });
    }
  };
  const saveAll = () =>
    attempt(async () => {
      const all = await allChats();
      save("slimmoa-chats.json", "application/json", chatsAsJson(all));
      return `The file has ${count(all.length, "chat")}.`;
    });
  const saveVotes = () =>
    attempt(async () => {
      const rows = votesAsRows(await allChats(), withNamed);
      if (rows.length === 0) return "There are no votes to export yet. Compare an answer with a proposal to vote.";
      save("slimmoa-votes.json", "application/json", `${JSON.stringify(rows, null, 1)}\n`);
      return `The file has ${count(rows.length, "vote")}.`;
    });
  const take = (file: File) =>
    attempt(async () => {
      if (file.size > LARGEST_IMPORT)
        throw new Error(`The file has ${file.size} bytes. Allowed are ${LARGEST_IMPORT}.`);
      const found = importChats(await file.text());
      await addChats(found);
      return `${count(found.length, "chat")} imported.`;
    });
  const removeAll = () =>
    attempt(async () => {
      if (!confirm("Delete all chats of this browser? They cannot be brought back.")) return "Nothing was deleted.";
      running.peek()?.stop();
      await removeAllChats();
      return "All chats are deleted.";
    });
  return (
    <Dialog title="Export and import" onClose={onClose}>
      <div class="stack">
        <section class="stack tight" aria-label="This chat">
          <h3>This chat</h3>
          <div class="row">
            <button type="button" class="outlined" disabled={isEmpty} onClick={() => saveOne(chat.peek(), "md")}>
              Save as Markdown
            </button>
            <button type="button" class="outlined" disabled={isEmpty} onClick={() => saveOne(chat.peek(), "json")}>
              Save as JSON
            </button>
          </div>
        </section>
        <section class="stack tight" aria-label="All chats">
          <h3>All chats</h3>
          <div class="row">
            <button type="button" class="outlined" onClick={() => void saveAll()}>
              Save all as JSON
            </button>
            <button type="button" class="outlined bad" onClick={() => void removeAll()}>
              Delete all
            </button>
          </div>
          <label class="field">
            <span>Import chats from a file of this page (JSON)</span>
            <input
              type="file"
              accept=".json,application/json"
              onChange={(event) => {
                const file = event.currentTarget.files?.[0];
                if (file) void take(file);
                event.currentTarget.value = "";
              }}
            />
          </label>
        </section>
        <section class="stack tight" aria-label="Votes">
          <h3>Votes</h3>
          <p class="muted">`slimmoa bench score` reads this file, and so does alpaca_eval.</p>
          <div class="row">
            <button type="button" class="outlined" onClick={() => void saveVotes()}>
              Save votes
            </button>
          </div>
          <label class="tick">
            <input
              type="checkbox"
              checked={withNamed}
              onChange={(event) => setWithNamed(event.currentTarget.checked)}
            />
            <span>Also votes on texts that name a model, which were perhaps not blind</span>
          </label>
        </section>
        {said && (
          <p class={said.isBad ? "said-bad" : undefined} role={said.isBad ? "alert" : "status"}>
            {said.words}
          </p>
        )}
      </div>
    </Dialog>
  );
}

function saveOne(one: Chat, kind: "md" | "json"): void {
  const name = `${fileName(one.title)}.${kind}`;
  if (kind === "md") save(name, "text/markdown", chatAsMarkdown(one));
  else save(name, "application/json", chatAsJson(one));
}

/** A name that every file system takes. */
function fileName(title: string): string {
  const words = title
    .normalize("NFKC")
    .replaceAll(/[^\p{L}\p{N}]+/gu, "-")
    .slice(0, NAME_CHARACTERS);
  return words.replaceAll(/^-+|-+$/g, "") || "chat";
}

function save(name: string, type: string, text: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  // The browser has to begin the download first.
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function count(number: number, what: string): string {
  return number === 1 ? `1 ${what}` : `${number} ${what}s`;
}
