/** The API key that a person typed. It is kept for this tab, or by the browser on request, and never in the URL. */
import { computed, signal } from "@preact/signals";

const NAME = "slimmoa.key";

function kept(storage: () => Storage): string | null {
  try {
    return storage().getItem(NAME);
  } catch {
    return null; // a browser can forbid storage; the key then lasts as long as the page
  }
}

function keep(storage: () => Storage, value: string | null): void {
  try {
    if (value === null) storage().removeItem(NAME);
    else storage().setItem(NAME, value);
  } catch {
    // as above
  }
}

const tab = () => sessionStorage;
const browser = () => localStorage;

export const key = signal(kept(tab) ?? kept(browser) ?? "");
export const isKeyKept = signal(kept(browser) !== null);
export const hasKey = computed(() => key.value !== "");

/** What is wrong with a typed key; null if it can be sent. A header can carry nothing else. */
export function keyProblem(typed: string): string | null {
  if (/^[!-~]*$/.test(typed)) return null;
  return "A key has only letters, digits and signs without spaces. Look whether something else was copied with it.";
}

/** Use a key from now on; an empty key forgets the old one. */
export function setKey(typed: string, stays: boolean): void {
  key.value = typed;
  isKeyKept.value = stays && typed !== "";
  keep(tab, typed && !stays ? typed : null);
  keep(browser, typed && stays ? typed : null);
}
