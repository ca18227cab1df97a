/** The page's entry. */
import { effect } from "@preact/signals";
import { render } from "preact";
import { running } from "./model/asking.ts";
import { chat, startChats } from "./model/chats.ts";
import { key } from "./model/key.ts";
import { loadModels, StateWatch } from "./model/server.ts";
import { startTheme } from "./model/theme.ts";
import { App } from "./view/app.tsx";
import { startShortcuts } from "./view/shortcuts.ts";
import { isCardOpen, isWide, tab } from "./view/ui.ts";
import "./view/theme.css";
import "./view/base.css";
import "./view/layout.css";
import "./view/turn.css";

/** How closely the state of the server is looked at: it is on the page while an answer runs, in the panel, and in the bar. */
function stateShown(): "look" | "glance" | "no" {
  if (running.value || isCardOpen.value || (!isWide.value && tab.value === "card")) return "look";
  return isWide.value ? "glance" : "no";
}

startTheme();
startShortcuts();
const watch = new StateWatch(stateShown);
effect(() => {
  stateShown();
  key.value;
  watch.look();
});
effect(() => {
  const { title } = chat.value;
  document.title = title ? `${title} - SlimMoA` : "SlimMoA";
});
void startChats();
void loadModels();
render(<App />, document.getElementById("page")!);
