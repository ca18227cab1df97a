/** The comparison of an answer with its proposals, which the page loads when a reader opens the first one. */
import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";

import type { CompareProps } from "./comparison.tsx";
import "./compare.css";

let loaded: ComponentType<CompareProps> | null = null;

/** Compares an answer with the proposals that it was made from. */
export function Compare(props: CompareProps) {
  const [Part, setPart] = useState(() => loaded);
  const [isLost, setLost] = useState(false);
  useEffect(() => {
    if (Part) return;
    import("./comparison.tsx").then(
      ({ Comparison }) => {
        loaded = Comparison;
        setPart(() => Comparison);
      },
      () => setLost(true),
    );
  }, [Part]);
  if (Part) return <Part {...props} />;
  return <p class="compare-note">{isLost ? "The comparison could not be loaded. Reload the page." : "Loading the comparison."}</p>;
}
