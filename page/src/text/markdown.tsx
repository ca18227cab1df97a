/** A text in Markdown that a model wrote, or still writes. */
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";

import { TextView } from "./view.ts";
import "./text.css";

interface MarkdownProps {
  /** The text; it may be hostile. */
  text: string;
  /** Whether more may follow. */
  growing: boolean;
  /** Called with the element of the text when all of a text that does not grow is shown. */
  onWhole?: (element: HTMLElement) => void;
}

/**
 * Shows a text as Markdown. Blocks that are finished keep their elements, so a reader can select in a text that
 * grows.
 */
export function Markdown({ text, growing, onWhole }: MarkdownProps) {
  const host = useRef<HTMLDivElement>(null);
  const view = useRef<TextView | null>(null);
  const whole = useRef(onWhole);
  whole.current = onWhole;
  useLayoutEffect(() => {
    view.current ??= new TextView(host.current!, () => whole.current?.(host.current!));
    view.current.update(text, growing);
  }, [text, growing]);
  useEffect(
    () => () => {
      view.current?.end();
      view.current = null;
    },
    [],
  );
  return <div class="markdown" ref={host} />;
}
