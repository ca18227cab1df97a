"""What a server costs that nobody asks: CPU by process.

    python -m benchmarks.speed.idle [--config scripted] [--seconds 60] [--json FILE]

Serves the recipe, waits until it has settled, and counts the CPU of all of its processes: those of
Ray's session, and the driver, which this process is.
"""

import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.shared.harness import report, run, serving
from benchmarks.shared.others import others_cpu_s
from benchmarks.shared.processes import family, named, snapshot, taken
from configs.load import load


def rows(cpu_s: Mapping[str, float], seconds: float, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Percent of one core by what the processes are, the most first, and the sum of all."""
    ranked = sorted(cpu_s.items(), key=lambda item: -item[1])
    table = [
        {"process": name, "processes": counts[name], "% of a core": 100 * taken_s / seconds}
        for name, taken_s in ranked
    ]
    sums = {"processes": sum(counts.values()), "% of a core": 100 * sum(cpu_s.values()) / seconds}
    return [*table, {"process": "all", **sums}]


def main(
    *,
    config: Annotated[str, typer.Option(help="A recipe's path, or a preset's name.")] = "scripted",
    seconds: Annotated[float, typer.Option(help="How long to count.")] = 60,
    settle_s: Annotated[float, typer.Option(help="How long to wait before that.")] = 15,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """CPU of a server that nobody asks; a minute and a half."""
    root = os.getpid()
    with serving(load(config)):
        time.sleep(settle_s)
        before, others_s, began = family(snapshot(), root), others_cpu_s(), time.monotonic()
        time.sleep(seconds)
        after = family(snapshot(), root)
        others_s, lasted_s = others_cpu_s() - others_s, time.monotonic() - began
    cpu_s = taken(before, after, root)
    counts = Counter(named(process, root) for process in after)
    others = others_s / lasted_s
    print(f"other programs meanwhile: {others:.2f} of {os.cpu_count()} cores")
    title = f"CPU of {config} while nobody asks, over {lasted_s:.0f} s"
    report(title, rows(cpu_s, lasted_s, counts), [], json, **{"other programs, cores": others})


if __name__ == "__main__":
    run(main)
