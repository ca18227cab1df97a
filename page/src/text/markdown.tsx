/** A text in Markdown that a model wrote, or still writes. */
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

import type { TextView } from "./view.ts";
import "./text.css";

interface MarkdownProps {
  /** The text; it may be hostile. */
  text: string;
  /** Whether more may follow. */
  growing: boolean;
  /** Called with the element of the text when all of a text that does not grow is shown. */
  onWhole?: (element: HTMLElement) => void;
}

/** So many characters of a text are shown before the part that reads Markdown is there. */
const SHOWN_BEFORE = 20_000;

/**
 * The part that reads Markdown is large, and the page's first view has no text of a model: it is loaded behind the
 * first view. Until it is there, or if it cannot be loaded, texts are shown as they are.
 */
let part: typeof import("./view.ts") | null = null;
let loading: Promise<void> | null = null;

async function load(): Promise<void> {
  try {
    part = await import("./view.ts");
  } catch {
    loading = null; // the next text tries again
  }
}

if (typeof requestIdleCallback === "function") requestIdleCallback(() => void (loading ??= load()));

/**
 * Shows a text as Markdown. Blocks that are finished keep their elements, so a reader can select in a text that
 * grows.
 */
export function Markdown({ text, growing, onWhole }: MarkdownProps) {
  const [isLoaded, setLoaded] = useState(part !== null);
  const host = useRef<HTMLDivElement>(null);
  const view = useRef<TextView | null>(null);
  const whole = useRef(onWhole);
  whole.current = onWhole;
  useLayoutEffect(() => {
    const element = host.current!;
    if (part === null) {
      element.textContent = text.slice(0, SHOWN_BEFORE);
      void (loading ??= load()).then(() => setLoaded(part !== null));
      return;
    }
    if (view.current === null) {
      element.replaceChildren();
      view.current = new part.TextView(element, () => whole.current?.(element));
    }
    view.current.update(text, growing);
  }, [text, growing, isLoaded]);
  useEffect(
    () => () => {
      view.current?.end();
      view.current = null;
    },
    [],
  );
  return <div class={isLoaded ? "markdown" : "markdown plain"} ref={host} />;
}
