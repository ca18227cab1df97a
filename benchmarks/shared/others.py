"""What other programs took of the CPU while something was measured: on Linux, from /proc.

Engines that use all cores wait for their slowest thread, so a neighbour's second costs them more.
"""

import os
from collections import defaultdict
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def others_cpu_s() -> float:
    """CPU seconds since the boot of all that is not this process or below it; only their difference
    between two moments means something. NaN where there is no /proc."""
    try:
        user, nice, system, _idle, _iowait, irq, softirq, *_ = _numbers("stat", after="cpu ")
    except OSError:
        return float("nan")
    return (user + nice + system + irq + softirq - _ours()) / TICKS_PER_S


def _ours() -> float:
    """Ticks of this process and all below it, with what they have seen the end of."""
    ticks: dict[int, int] = {}
    children = defaultdict(list)
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            try:
                fields = _numbers(f"{folder.name}/stat", after=") ")
            except OSError:
                continue  # it has just ended
            ticks[int(folder.name)] = sum(fields[10:14])
            children[fields[0]].append(int(folder.name))
    family = [os.getpid()]
    for process in family:
        family += children[process]
    return sum(ticks.get(process, 0) for process in family)


def _numbers(file: str, after: str) -> list[int]:
    """The numbers of a file's first line that stand after some text."""
    line = (PROC / file).read_text("utf-8", "replace").split("\n", 1)[0]
    return [int(word) for word in line.rsplit(after, 1)[1].split() if word.lstrip("-").isdigit()]
