/** The list of keys, and what the page keeps where. */
import { Dialog } from "./dialog.tsx";

const KEYS: [string, string][] = [
  ["Enter", "Send the question"],
  ["Shift + Enter", "Begin a new line in the question"],
  ["Esc", "Stop the answer that is being written"],
  ["Ctrl + K", "Begin a new chat"],
  ["Alt + 1 to 9", "Enlarge a proposal, or make it small again"],
  ["F6", "Go to the next region of the page; Shift + F6 goes back"],
  ["? or Ctrl + /", "Show this list; ? works outside the field for the question"],
];

export function HelpDialog({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keys" onClose={onClose}>
      <dl class="keys">
        {KEYS.map(([name, what]) => (
          <div key={name}>
            <dt>
              <kbd>{name}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <p class="muted">
        Several models propose an answer, and another model, the aggregator, reads the proposals and writes the answer.
        Chats are kept in this browser only; the server keeps none of them.
      </p>
      <p>
        <a href="page/licences.txt">Licences of the libraries in this page</a>
      </p>
    </Dialog>
  );
}
