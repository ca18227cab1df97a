"""How the work of a run went over time, from the progress that it kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from jobs.records import Progress

BINS = 150

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Work:
    """A run's work in equal bins of working time: the time between its sessions is cut out.

    edges: of the bins, seconds worked, one more than bins; rows: answered, swaps: made, both in all at
    the end of each bin; tokens_per_s: in the bin; resumed: seconds worked when a later session began;
    tokens, calls, reused: in all.
    """

    edges: tuple[float, ...]
    rows: tuple[float, ...]
    swaps: tuple[float, ...]
    tokens_per_s: tuple[float, ...]
    resumed: tuple[float, ...]
    tokens: int
    calls: int
    reused: int

    @property
    def seconds(self) -> float:
        return self.edges[-1]


def work(progress: Sequence[Progress]) -> Work | None:
    """None where there is too little to draw.

    progress: in the order in which it was kept. Rows are counted by generator; tokens, calls and swaps
    for all of them together, from the start of each session: where calls fall, a session began.
    """
    began = [_calls(now) < _calls(before) for before, now in pairwise(progress)]
    steps = [
        0.0 if new else max(0.0, now.at - before.at)
        for (before, now), new in zip(pairwise(progress), began, strict=True)
    ]
    clock = np.cumsum([0.0, *steps])
    if clock[-1] <= 0:
        return None
    edges = np.linspace(0, clock[-1], min(BINS, len(clock) - 1) + 1)
    tokens = _so_far([each.tokens for each in progress], began)
    swaps = _so_far([each.swaps for each in progress], began)
    return Work(
        edges=tuple(edges.tolist()),
        rows=tuple(_rows(progress, clock, edges)[1:].tolist()),
        swaps=tuple(np.interp(edges[1:], clock, swaps).tolist()),
        tokens_per_s=tuple((np.diff(np.interp(edges, clock, tokens)) / np.diff(edges)).tolist()),
        resumed=tuple(clock[1:][began].tolist()),
        tokens=int(tokens[-1]),
        calls=int(_so_far([each.calls for each in progress], began)[-1]),
        reused=int(_so_far([each.reused for each in progress], began)[-1]),
    )


def _calls(progress: Progress) -> int:
    return progress.calls + progress.reused


def _so_far(counted: Sequence[int], began: Sequence[bool]) -> Floats:
    """A counter that starts anew with each session, over all of them."""
    steps = [
        now if new else now - before
        for (before, now), new in zip(pairwise(counted), began, strict=True)
    ]
    return np.cumsum(np.array([counted[0], *steps], float))


def _rows(progress: Sequence[Progress], clock: Floats, edges: Floats) -> Floats:
    """Answered by all generators together, at each edge."""
    rows = np.zeros(len(edges))
    for name in dict.fromkeys(each.generator for each in progress):
        own = np.array([each.generator == name for each in progress])
        values = [each.rows for each in progress if each.generator == name]
        rows += np.interp(edges, clock[own], values, left=0)
    return rows
