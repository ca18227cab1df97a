/** What the polite live region says: boundaries of answers, and what buttons did. */
import { signal } from "@preact/signals";

export const announcement = signal("");

export function announce(sentences: string[]): void {
  if (sentences.length > 0) announcement.value = sentences.join(" ");
}
