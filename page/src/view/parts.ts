/** The parts of the page that are loaded when one of them is first shown. `late.css` has their styles. */
import { lazy } from "./lazy.tsx";

const load = () => import("./late_parts.ts");

export const CardPanel = lazy(async () => (await load()).CardPanel);
export const Compare = lazy(async () => (await load()).Compare);
export const ExportDialog = lazy(async () => (await load()).ExportDialog, true);
export const FuseDialog = lazy(async () => (await load()).FuseDialog, true);
export const HelpDialog = lazy(async () => (await load()).HelpDialog, true);
export const Waterfall = lazy(async () => (await load()).Waterfall);
export const Why = lazy(async () => (await load()).Why);
