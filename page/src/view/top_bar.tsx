/** The bar at the top: which model is asked, and everything that is about the page as a whole. */
import { newChat } from "../model/chats.ts";
import { hasKey } from "../model/key.ts";
import { chosenModel, mixture, models, state } from "../model/server.ts";
import { isDark, switchTheme } from "../model/theme.ts";
import { Icon } from "./icons.tsx";
import { isCardOpen, isChatsOpen, openDialog } from "./ui.ts";

export function TopBar() {
  return (
    <header class="top-bar" data-region="top" tabIndex={-1}>
      <h1>SlimMoA</h1>
      <ModelPicker />
      <span class="gap" />
      <nav class="row" aria-label="Page">
        <button type="button" class="quiet" aria-label="New chat" title="New chat (Ctrl + K)" onClick={newChat}>
          <Icon name="plus" />
          <span class="label">New chat</span>
        </button>
        <button
          type="button"
          class="quiet"
          aria-label="Chats"
          aria-expanded={isChatsOpen.value}
          onClick={() => (isChatsOpen.value = !isChatsOpen.value)}
        >
          <Icon name="chats" />
          <span class="label">Chats</span>
        </button>
        <button
          type="button"
          class="quiet"
          aria-label={hasKey.value ? "Key: set" : "Key: none"}
          onClick={() => openDialog("key")}
        >
          <Icon name="key" />
          <span class="label">{hasKey.value ? "Key: set" : "Key"}</span>
        </button>
        <button
          type="button"
          class="quiet square"
          aria-label={isDark.value ? "Switch to light colours" : "Switch to dark colours"}
          onClick={switchTheme}
        >
          <Icon name={isDark.value ? "sun" : "moon"} />
        </button>
        <button
          type="button"
          class="quiet square"
          aria-label="Help and keys"
          title="Keys (?)"
          onClick={() => openDialog("help")}
        >
          <Icon name="help" />
        </button>
        <CardButton />
      </nav>
    </header>
  );
}

function ModelPicker() {
  const names = models.value.map((model) => model.id);
  if (names.length === 0) return null;
  return (
    <select
      class="picker"
      aria-label="Recipe or model"
      value={chosenModel.value}
      onChange={(event) => (chosenModel.value = event.currentTarget.value)}
    >
      {names.map((name) => (
        <option key={name} value={name}>
          {name === mixture.value ? name : `${name} alone`}
        </option>
      ))}
    </select>
  );
}

/** Opens the panel of the card, and says how many models are awake. */
function CardButton() {
  const members = state.value?.cards.flatMap((card) => card.members) ?? [];
  const awake = members.filter((member) => member.state === "resident").length;
  const words = members.length > 0 ? `${awake} of ${members.length} awake` : "Card";
  return (
    <button
      type="button"
      class="quiet"
      aria-label={members.length > 0 ? `Card: ${words}` : "Card"}
      aria-expanded={isCardOpen.value}
      onClick={() => (isCardOpen.value = !isCardOpen.value)}
    >
      <Icon name="card" />
      <span class="label clock">{words}</span>
    </button>
  );
}
