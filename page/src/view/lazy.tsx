/** A component that is loaded when it is first shown, so that the page itself is there sooner. */
import { h, type ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";

export function lazy<P extends object>(load: () => Promise<ComponentType<P>>): ComponentType<P> {
  let loaded: ComponentType<P> | null = null;
  return function Lazy(props: P) {
    const [part, setPart] = useState(() => loaded);
    const [problem, setProblem] = useState(false);
    useEffect(() => {
      if (part) return;
      load().then(
        (found) => setPart(() => (loaded = found)),
        () => setProblem(true),
      );
    }, []);
    if (problem) return <p role="alert">This part of the page could not be loaded. Reload the page.</p>;
    return part ? h(part, props) : <p class="muted">One moment.</p>;
  };
}
