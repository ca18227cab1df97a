/** All parts of the page that are loaded late, in one file: several small files would be larger together. */
export { CardPanel } from "../card/card.tsx";
export { Compare } from "../compare/compare.tsx";
export { Waterfall } from "../waterfall/waterfall.tsx";
export { ExportDialog } from "./export_dialog.tsx";
export { FuseDialog } from "./fuse_dialog.tsx";
export { HelpDialog } from "./help_dialog.tsx";
export { Why } from "./why.tsx";
