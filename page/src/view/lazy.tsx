/** Components that are loaded when they are first shown, so that the page itself is there sooner. */
import { h, type ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";

let styles: Promise<void> | null = null;

/** Load the styles of all lazy components, once. The build writes their name into index.html. */
function loadStyles(): Promise<void> {
  styles ??= new Promise((resolve) => {
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = document.querySelector<HTMLMetaElement>("meta[name=late-styles]")!.content;
    // Without its styles a part is ugly, and still of use.
    link.onload = link.onerror = () => resolve();
    document.head.append(link);
  });
  return styles;
}

/** A component that is loaded when it is first shown, by a function that imports it. */
export function lazy<P extends object>(load: () => Promise<ComponentType<P>>, isDialog = false): ComponentType<P> {
  let loaded: ComponentType<P> | null = null;
  return function Lazy(props: P) {
    const [part, setPart] = useState(() => loaded);
    const [problem, setProblem] = useState(false);
    useEffect(() => {
      if (part) return;
      Promise.all([load(), loadStyles()]).then(
        ([found]) => setPart(() => (loaded = found)),
        () => setProblem(true),
      );
    }, []);
    if (problem) return <p role="alert">This part of the page could not be loaded. Reload the page.</p>;
    if (part) return h(part, props);
    return isDialog ? null : <p class="muted">One moment.</p>;
  };
}
