"""Computes the work of a run over time from its stored progress."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from jobs.records import Progress

BINS = 150
"""The time is split into so many bins at most, about one for two points of a plot's width."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WorkOverTime:
    """The work of a run in bins of equal time.

    A session is the time from the start of a command to its end. The time between sessions is cut out.
    """

    edges: tuple[float, ...]
    """Edges of the bins, in seconds of work; there is one more edge than bins."""
    rows: tuple[float, ...]
    """Number of rows answered until the end of each bin, by all generators together."""
    swaps: tuple[float, ...]
    """Number of swaps made until the end of each bin."""
    tokens_per_s: tuple[float, ...]
    """Mean tokens per second in each bin."""
    resumed: tuple[float, ...]
    """When each session after the first began, in seconds of work."""
    tokens: int
    """Tokens written by engines, in all sessions."""
    calls: int
    """Calls that engines finished, in all sessions."""
    reused: int
    """Calls whose result was in the store, or that several answers shared, in all sessions."""

    @property
    def seconds(self) -> float:
        """Duration of all sessions together, in seconds."""
        return self.edges[-1]


def work_over_time(progress: Sequence[Progress]) -> WorkOverTime | None:
    """Compute the work of a run from its progress, in the order in which it was stored.

    The progress counts the rows of each generator over all sessions. It counts tokens, calls and swaps
    for all generators together, from zero in each session. So a session began where the number of calls
    falls.

    Returns:
        The work, or None if there is too little progress to draw.
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
    tokens = _add_up([each.tokens for each in progress], began)
    swaps = _add_up([each.swaps for each in progress], began)
    return WorkOverTime(
        edges=tuple(edges.tolist()),
        rows=tuple(_rows(progress, clock, edges)[1:].tolist()),
        swaps=tuple(np.interp(edges[1:], clock, swaps).tolist()),
        tokens_per_s=tuple((np.diff(np.interp(edges, clock, tokens)) / np.diff(edges)).tolist()),
        resumed=tuple(clock[1:][began].tolist()),
        tokens=int(tokens[-1]),
        calls=int(_add_up([each.calls for each in progress], began)[-1]),
        reused=int(_add_up([each.reused for each in progress], began)[-1]),
    )


def _calls(progress: Progress) -> int:
    return progress.calls + progress.reused


def _add_up(counted: Sequence[int], began: Sequence[bool]) -> Floats:
    """The total over all sessions of a counter that starts from zero in each session."""
    steps = [
        now if new else now - before
        for (before, now), new in zip(pairwise(counted), began, strict=True)
    ]
    return np.cumsum(np.array([counted[0], *steps], float))


def _rows(progress: Sequence[Progress], clock: Floats, edges: Floats) -> Floats:
    """Rows that all generators together had answered at each edge."""
    rows = np.zeros(len(edges))
    for name in dict.fromkeys(each.generator for each in progress):
        own = np.array([each.generator == name for each in progress])
        values = [each.rows for each in progress if each.generator == name]
        rows += np.interp(edges, clock[own], values, left=0)
    return rows
