/** Where a person types the API key. */
import { useState } from "preact/hooks";
import { hasKey, isKeyKept, key, keyProblem } from "../model/key.ts";
import { Dialog } from "./dialog.tsx";

interface Props {
  /** Why the page asks for a key; null if a person opened the dialog. */
  wanted: string | null;
  onClose: () => void;
  /** Gets the key, empty to forget it, and whether the browser keeps it. */
  onKey: (key: string, stays: boolean) => void;
}

export function KeyDialog({ wanted, onClose, onKey }: Props) {
  const [typed, setTyped] = useState(key.peek());
  const [stays, setStays] = useState(isKeyKept.peek());
  const problem = keyProblem(typed.trim());
  const save = (event: Event) => {
    event.preventDefault();
    if (problem) return;
    onKey(typed.trim(), stays);
  };
  return (
    <Dialog title="API key" onClose={onClose}>
      <form class="stack" onSubmit={save}>
        {wanted !== null && (
          <p role="alert" class="said-bad">
            {`The server says: ${wanted}.`}
          </p>
        )}
        <label class="field">
          <span>Key</span>
          <input
            type="password"
            autocomplete="off"
            data-first
            spellcheck={false}
            value={typed}
            aria-invalid={problem !== null}
            aria-describedby="key-help"
            onInput={(event) => setTyped(event.currentTarget.value)}
          />
        </label>
        <p id="key-help" class={problem ? "said-bad" : "muted"}>
          {problem ?? "The page sends the key to its own server only. The key is forgotten when this tab is closed."}
        </p>
        <label class="tick">
          <input type="checkbox" checked={stays} onChange={(event) => setStays(event.currentTarget.checked)} />
          <span>Keep the key in this browser. Everybody who uses this browser can then use the key.</span>
        </label>
        <div class="row end">
          {hasKey.value && (
            <button type="button" class="quiet" onClick={() => onKey("", false)}>
              Forget the key
            </button>
          )}
          <button type="submit" class="main">
            Use this key
          </button>
        </div>
      </form>
    </Dialog>
  );
}
