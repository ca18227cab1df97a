"""Says what is waited for, whenever a wait takes longer than a person expects."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FIRST_S = 5.0
"""Seconds after which a wait is said for the first time."""
LONGEST_S = 60.0
"""Most seconds between two lines about the same wait."""


def next_line_s(waited_s: float) -> float:
    """Seconds from the beginning of a wait until its next line: after 5, 10, 20, 40 s and so on, and at
    least once in LONGEST_S.

    Args:
        waited_s: how long the wait takes already, in seconds.
    """
    due = FIRST_S
    while due <= waited_s:
        due += min(due, LONGEST_S)
    return due


def waiting_line(what: str, waited_s: float) -> str:
    """The line about a wait.

    Args:
        what: what is waited for, as it stands after "waiting for".
        waited_s: how long the wait takes already, in seconds.
    """
    return f"waiting for {what} since {waited_s:.0f} s"


@contextmanager
def tell_waiting(what: str | Callable[[], str], say: Callable[[str], None]) -> Iterator[None]:
    """While the block lasts, say what is waited for: first after FIRST_S, then less and less often.

    The block may also await in an event loop.

    Args:
        what: what is waited for, or a function that looks it up. The function is called in a thread of
            its own; if it fails, the line is left out.
        say: is called in that thread with each line.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_tell, args=[what, say, ended], daemon=True, name="waiting")
    thread.start()
    try:
        yield
    finally:
        ended.set()


def _tell(what: str | Callable[[], str], say: Callable[[str], None], ended: threading.Event) -> None:
    began = time.monotonic()
    while not ended.wait(began + next_line_s(time.monotonic() - began) - time.monotonic()):
        try:
            name = what if isinstance(what, str) else what()
        except Exception:  # to tell of a wait is no reason to disturb it
            continue
        if not ended.is_set():
            say(waiting_line(name, time.monotonic() - began))


class WaitTeller:
    """Says that many callers wait for the same thing, once for all of them.

    Args:
        say: is called with each line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._waits: dict[str, tuple[float, float]] = {}
        """When each wait began, and when its next line is due."""

    def waits(self, what: str, now: float, why: str) -> None:
        """A caller waits for `what`; to be called again and again while any caller does.

        Args:
            what: what is waited for.
            now: the present time in seconds of any clock.
            why: why it is not there.
        """
        since, due = self._waits.setdefault(what, (now, now + FIRST_S))
        if now >= due:
            self._waits[what] = since, since + next_line_s(now - since)
            self._say(f"{waiting_line(what, now - since)}: {why}")

    def ends(self, what: str) -> None:
        """The wait for `what` is over; the next one is another."""
        self._waits.pop(what, None)
