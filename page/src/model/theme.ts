/** Light or dark: as the system says, until a person chooses. */
import { computed, effect, signal } from "@preact/signals";

const NAME = "slimmoa.theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const systemIsDark = signal(system.matches);
const chosen = signal(read());

export const isDark = computed(() => (chosen.value === null ? systemIsDark.value : chosen.value === "dark"));

function read(): string | null {
  try {
    return localStorage.getItem(NAME);
  } catch {
    return null;
  }
}

export function startTheme(): void {
  system.addEventListener("change", (event) => (systemIsDark.value = event.matches));
  effect(() => {
    document.documentElement.dataset["theme"] = isDark.value ? "dark" : "light";
  });
}

export function switchTheme(): void {
  const next = isDark.value ? "light" : "dark";
  // A choice that agrees with the system follows the system again.
  chosen.value = (next === "dark") === systemIsDark.value ? null : next;
  try {
    if (chosen.value === null) localStorage.removeItem(NAME);
    else localStorage.setItem(NAME, chosen.value);
  } catch {
    // a browser can forbid storage; the choice then lasts as long as the page
  }
}
