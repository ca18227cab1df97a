"""A limit on how often the log says the same: a flood of requests is no flood of lines. Pure."""

from collections.abc import Hashable
from dataclasses import dataclass

LINES = 5
"""Lines about one thing within `WINDOW_S` seconds. Further ones are only counted."""
WINDOW_S = 10.0
MOST_THINGS = 1000
"""Most things that are told apart at a time. All further ones count as one."""


@dataclass(slots=True)
class _Window:
    began: float
    lines: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Lines that were not written."""

    thing: Hashable
    """What the lines were about."""
    count: int
    seconds: float
    """How long the window was."""


class LineLimit:
    """Decides which lines are written."""

    def __init__(self, lines: int = LINES, window_s: float = WINDOW_S) -> None:
        self._lines = lines
        self.window_s = window_s
        self._windows: dict[Hashable, _Window] = {}

    def allows(self, thing: Hashable, now: float) -> bool:
        """Whether a line about `thing` is written; if not, it is counted.

        Call `ended` first: it gives the counts of the windows that are over.
        """
        if thing not in self._windows and len(self._windows) >= MOST_THINGS:
            thing = None
        window = self._windows.setdefault(thing, _Window(now))
        if window.lines < self._lines:
            window.lines += 1
            return True
        window.left_out += 1
        return False

    def ended(self, now: float) -> list[LeftOut]:
        """Forget the windows that are over; give those in which lines were left out."""
        over = [
            (thing, window)
            for thing, window in self._windows.items()
            if now - window.began >= self.window_s
        ]
        for thing, _ in over:
            del self._windows[thing]
        return [
            LeftOut(thing, window.left_out, now - window.began)
            for thing, window in over
            if window.left_out
        ]
