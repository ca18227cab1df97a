"""The memory of many processes over time: what shared pages they have count once (PSS)."""

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psutil

EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Bytes of each process at a moment of the monotonic clock."""

    at: float
    used: dict[psutil.Process, int]


class MemoryLog:
    """Samples, no more often than EVERY_S."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def look(self, processes: Iterable[psutil.Process]) -> None:
        """Take a sample if it is time for one."""
        now = time.monotonic()
        if self.samples and now - self.samples[-1].at < EVERY_S:
            return
        used = {}
        for process in processes:
            try:
                used[process] = process.memory_full_info().pss
            except psutil.Error:
                continue  # it has just ended
        self.samples.append(Sample(now, used))


def growth(samples: Sequence[Sample], *, lasting: bool) -> float:
    """What is used in the last third of the samples over the first: medians of the sums.

    lasting: only of processes that were there from the first sample to the last.
    """
    third = max(1, len(samples) // 3)
    same = set(samples[0].used).intersection(*(sample.used for sample in samples))

    def used(part: Sequence[Sample]) -> float:
        return statistics.median(
            sum(count for process, count in sample.used.items() if not lasting or process in same)
            for sample in part
        )

    return used(samples[-third:]) / used(samples[:third])
