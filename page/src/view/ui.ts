/** What is open on the page, and how much room there is. */
import { computed, signal } from "@preact/signals";

export type DialogName = "key" | "help" | "fuse" | "compare" | "export";

/** The dialog that is open, and the id of the answer that it is about. */
export const dialog = signal<{ name: DialogName; answerId?: string } | null>(null);
export const isChatsOpen = signal(false);
export const isCardOpen = signal(false);

/** Width of the conversation in rem. */
export const roomRem = signal(80);
/** Least width of a column, so that its lines stay readable. */
const COLUMN_REM = 20;
const GAP_REM = 1;
/** Whether two columns fit side by side. Otherwise the parts of an answer are tabs. */
export const isWide = computed(() => roomRem.value >= 2 * COLUMN_REM + GAP_REM);

/** The place of the column that is enlarged, by the id of its answer; counted over all layers. */
export const enlarged = signal<{ answerId: string; index: number } | null>(null);

/** The tab that is shown where there is no room for columns: the answer, a column by its index, or a panel. */
export type Tab = "answer" | "time" | "card" | number;
export const tab = signal<Tab>("answer");
/** Folds that a person opened or closed, by a name of their own. */
export const folds = signal<ReadonlyMap<string, boolean>>(new Map());

export function setFold(name: string, isOpen: boolean): void {
  folds.value = new Map(folds.peek()).set(name, isOpen);
}

export function openDialog(name: DialogName, answerId?: string): void {
  dialog.value = answerId === undefined ? { name } : { name, answerId };
}
