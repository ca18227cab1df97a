"""A fake GPU: an actor that keeps its memory, and holds engines at latches."""

import asyncio
from pathlib import Path
from typing import Any

GIB = 1 << 30


class Card:
    """Memory that processes take and give back. It never goes below zero: that is what is tested.

    A process that is dead has given its memory back. While `is_late`, memory that was given back is not
    free yet: the test says when it is.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._taken: dict[int, int] = {}
        self._late: list[int] = []
        self._is_late = False
        self._neighbour = 0
        self._neighbour_after: tuple[str, int] | None = None
        self._broken: set[str] = set()
        self._failures: dict[str, int] = {}
        self._latches: dict[str, asyncio.Event] = {}
        self._events: list[str] = []
        self._news = asyncio.Condition()
        self.peak = 0
        self.forbidden: list[str] = []

    def _free(self) -> int:
        for process in [p for p in self._taken if not Path(f"/proc/{p}").exists()]:
            self._give(process)
        return self._total - self._neighbour - sum(self._taken.values()) - sum(self._late)

    def _give(self, process: int) -> None:
        given = self._taken.pop(process, 0)
        if self._is_late and given:
            self._late.append(given)

    async def memory(self) -> tuple[int, int]:
        """What NVML says: total and free bytes."""
        await self.note("memory")
        return self._total, self._free()

    async def take(self, name: str, process: int, wanted: int) -> str:
        """An engine takes memory. Returns what went wrong, or nothing."""
        if self._taken.get(process):
            self.forbidden.append(f"{name} has taken its memory already")
        free = self._free()
        if wanted > free:
            self.forbidden.append(f"{name} wants {wanted / GIB:.2f} GiB of {free / GIB:.2f}")
            return "CUDA Error: out of memory"
        self._taken[process] = wanted
        self.peak = max(self.peak, self._total - self._free())
        return ""

    async def give(self, process: int) -> None:
        self._give(process)

    async def late(self, is_late: bool) -> None:
        """From now on memory comes back late; or all of it comes back now."""
        self._is_late = is_late
        self._late.clear()

    async def neighbour(self, taken: int) -> None:
        """Another program holds so many bytes from now on."""
        self._neighbour = taken
        if self._free() < 0:
            self.forbidden.append("the test itself gave a neighbour more than there was")

    async def neighbour_after(self, event: str, taken: int) -> None:
        """Another program holds so many bytes as soon as the event has happened once more."""
        self._neighbour_after = (event, taken)

    async def breaks(self, name: str) -> None:
        """The process of an engine dies; so does its memory."""
        self._broken.add(name)

    async def is_broken(self, name: str) -> bool:
        return name in self._broken

    async def fail(self, step: str, times: int) -> None:
        self._failures[step] = times

    async def step(self, event: str) -> str:
        """Note an event and wait at its latch. Returns the error that the step ends with, if any."""
        if event.endswith(" start"):
            self._broken.discard(event.split()[0])
        await self.note(event)
        if (latch := self._latches.get(event)) is not None:
            await latch.wait()
        if self._failures.get(event, 0) > 0:
            self._failures[event] -= 1
            return f"{event} is to fail in this test"
        return ""

    async def hold(self, event: str) -> None:
        self._latches[event] = asyncio.Event()

    async def release(self, event: str) -> None:
        self._latches.pop(event).set()

    async def note(self, event: str) -> None:
        self._events.append(event)
        if self._neighbour_after is not None and self._neighbour_after[0] == event:
            await self.neighbour(self._neighbour_after[1])
            self._neighbour_after = None
        async with self._news:
            self._news.notify_all()

    async def wait_for(self, event: str, since: int, times: int = 1) -> None:
        """Return once the event has happened so often after the first `since` events."""
        async with self._news:
            await self._news.wait_for(lambda: self._events[since:].count(event) >= times)

    async def events(self, since: int = 0) -> list[str]:
        return self._events[since:]

    async def outcome(self) -> dict[str, Any]:
        """What must never have happened, the most bytes that were taken at a time, and the total."""
        return {"forbidden": self.forbidden, "peak": self.peak, "total": self._total}
