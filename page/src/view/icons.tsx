/** The page's signs: drawn here, so that no font or image is loaded. They are hidden from screen readers. */

const PATHS = {
  plus: "M12 5v14M5 12h14",
  chats: "M4 6h16M4 12h16M4 18h10",
  key: "M12 15.5a4 4 0 1 1-8 0 4 4 0 0 1 8 0ZM11 13l8.5-8.5M16 8l3 3M13.5 10.5l2 2",
  sun: "M12 4V2M12 22v-2M4 12H2M22 12h-2M5.6 5.6 4.2 4.2M19.8 19.8l-1.4-1.4M5.6 18.4l-1.4 1.4M19.8 4.2l-1.4 1.4M16 12a4 4 0 1 1-8 0 4 4 0 0 1 8 0Z",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5Z",
  help: "M9.2 9a2.9 2.9 0 1 1 4.3 2.6c-.9.5-1.5 1-1.5 2.1M12 17.5h.01",
  card: "M6 6h12v12H6zM9 2v4M15 2v4M9 18v4M15 18v4M2 9h4M2 15h4M18 9h4M18 15h4",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M8 8h8v8H8z",
  close: "M6 6l12 12M18 6 6 18",
  copy: "M9 9h11v11H9zM15 9V4H4v11h5",
  retry: "M20 12a8 8 0 1 1-2.5-5.8M20 3v4.5h-4.5",
  fuse: "M4 5c5 0 5 7 9 7h7M4 19c5 0 5-7 9-7M17 9l3 3-3 3",
  compare: "M4 5h7v14H4zM13 5h7v14h-7z",
  export: "M12 15V4M8 8l4-4 4 4M5 14v5h14v-5",
  why: "M12 11v6M12 7.5h.01M21 12a9 9 0 1 1-18 0 9 9 0 0 1 18 0Z",
  times: "M4 6h7M8 12h9M13 18h7",
  enlarge: "M14 5h5v5M10 19H5v-5M19 5l-6 6M5 19l6-6",
  shrink: "M19 10h-5V5M5 14h5v5M14 10l6-6M10 14l-6 6",
  bin: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  left: "M14 6l-6 6 6 6",
  right: "M10 6l6 6-6 6",
  down: "M6 9l6 6 6-6",
  // Phases of a proposal.
  waits: "M12 7v5l3 2M21 12a9 9 0 1 1-18 0 9 9 0 0 1 18 0Z",
  asleep: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5Z",
  waking: "M3 18h18M6 14a6 6 0 0 1 12 0M12 3v3M4.6 7.6l1.8 1.8M19.4 7.6l-1.8 1.8",
  reads: "M4 6h16M4 10h16M4 14h10M4 18h6",
  thinks: "M21 12a9 9 0 1 1-18 0 9 9 0 0 1 18 0ZM8 12h.01M12 12h.01M16 12h.01",
  writes: "M4 20l1-5L16 4l4 4L9 19zM14 6l4 4",
  done: "M5 13l5 5L20 7",
  late: "M12 7v5l3 2M21 12a9 9 0 1 1-18 0 9 9 0 0 1 18 0ZM3 3l18 18",
  dropped: "M6 6l12 12M18 6 6 18",
  spared: "M6 12h12",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class={`icon icon-${name}`} viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
