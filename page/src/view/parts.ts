/** The parts of the page that are loaded when they are first shown. Their styles are in the first load. */
import { lazy } from "./lazy.tsx";
import "../card/card.css";
import "../waterfall/waterfall.css";

export const CardPanel = lazy(async () => (await import("../card/card.tsx")).CardPanel);
export const Waterfall = lazy(async () => (await import("../waterfall/waterfall.tsx")).Waterfall);
export const Compare = lazy(async () => (await import("../compare/compare.tsx")).Compare);
export const ExportDialog = lazy(async () => (await import("./export_dialog.tsx")).ExportDialog);
