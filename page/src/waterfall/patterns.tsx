/** The fills of the bars: told apart by pattern, in the colours of `slimmoa plan`'s memory map. */
import type { Doing } from "./calls.ts";

const NAMES: Record<Doing, string> = {
  waits: "waits",
  reads: "reads",
  "waits or reads": "either",
  thinks: "thinks",
  writes: "writes",
  "reads and writes": "both",
};

/** The fill of a bar in the drawing with this id. */
export function patternOf(id: string, doing: Doing): string {
  return `url(#${id}-${NAMES[doing]})`;
}

/** Definitions of the fills: hatched waits, dotted reads, striped thinks, solid writes, and the mixtures of them. */
export function Patterns({ id }: { id: string }) {
  const pattern = { width: "8", height: "8", patternUnits: "userSpaceOnUse" as const };
  return (
    <defs>
      <pattern id={`${id}-waits`} {...pattern}>
        <rect class="fill-waits-ground" width="8" height="8" />
        <path class="fill-waits" d="M-2 6 6-2M0 12 12 0" />
      </pattern>
      <pattern id={`${id}-reads`} {...pattern}>
        <rect class="fill-reads-ground" width="8" height="8" />
        <circle class="fill-reads" cx="2" cy="2" r="1.4" />
        <circle class="fill-reads" cx="6" cy="6" r="1.4" />
      </pattern>
      <pattern id={`${id}-either`} {...pattern}>
        <rect class="fill-waits-ground" width="8" height="8" />
        <path class="fill-waits" d="M-2 6 6-2M0 12 12 0" />
        <circle class="fill-reads" cx="6" cy="6" r="1.4" />
      </pattern>
      <pattern id={`${id}-thinks`} {...pattern}>
        <rect class="fill-reads-ground" width="8" height="8" />
        <rect class="fill-writes" width="3" height="8" />
      </pattern>
      <pattern id={`${id}-writes`} {...pattern}>
        <rect class="fill-writes" width="8" height="8" />
      </pattern>
      <pattern id={`${id}-both`} {...pattern}>
        <rect class="fill-writes" width="8" height="8" />
        <circle class="fill-reads-ground-dot" cx="2" cy="2" r="1.4" />
        <circle class="fill-reads-ground-dot" cx="6" cy="6" r="1.4" />
      </pattern>
    </defs>
  );
}
