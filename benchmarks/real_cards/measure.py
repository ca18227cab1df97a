"""What is measured of one engine at each step of its life: start, speed, sleep, wake, stop, kill."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.real_cards.holder import Engine, HolderError, Speed
from benchmarks.real_cards.meters import BACK_S, Meter, Peak, seconds_until, settled_bytes
from benchmarks.real_cards.planned import Planned
from benchmarks.real_cards.steps import Notes, SkipStep
from cluster.cards.card import GIB, MIB
from cluster.plan.footprint import gib

TOLERANCE = 1.02
"""A figure counts as planned up to this many times the plan, because allocators round up."""
LEFT = 256 * MIB
"""Bytes that may stay used where nothing should stay: the allocators of the process itself."""
HOST_RESERVE = 4 * GIB
"""RAM that a sleeping engine must leave free."""

MakeEngine = Callable[[Planned], Engine]
"""Makes the engine of a planned model; nothing runs yet."""


@dataclass(slots=True)
class Subject:
    """One engine under test, and what was measured of it so far.

    Its bytes are the growth since its process was started. So its neighbours on the card must not
    change between two steps.
    """

    planned: Planned
    engine: Engine
    meter: Meter
    answer_tokens: int
    empty: int = 0
    """Bytes of the card before the engine's process ran."""
    idle: int = 0
    """Bytes of the card when the process ran without the engine."""
    host_before: int = 0
    """Bytes of the host's RAM before the engine's process ran."""
    text: str = ""
    """The answer to the probe before the first sleep."""

    @property
    def name(self) -> str:
        """The model's name."""
        return self.planned.name

    async def spawn(self) -> None:
        """Start the process without the engine, and note what is used before and after."""
        self.empty = await settled_bytes(self.meter)
        self.host_before = self.meter.host().used
        await self.engine.spawn()
        self.idle = await settled_bytes(self.meter)

    async def start(self, notes: Notes) -> None:
        """Start the engine and run a full batch, which allocates the rest of what it needs."""
        began = _now()
        async with Peak(self.meter) as peak:
            await self.engine.order("start")
        notes.add("seconds to start", _now() - began, "s")
        most, needs = peak.bytes - self.empty, self.planned.needs
        good = most <= needs.peak * TOLERANCE
        note = f"weights alone: {gib(needs.loading)}" if needs.loading else ""
        notes.add("peak while starting", most, "bytes", planned=needs.peak, good=good, note=note)
        # Asked first here and first after a wake, so that no cache of an earlier prompt plays a part.
        self.text = await self.engine.order("answer")
        await self.speed(needs.sequences)
        held = await settled_bytes(self.meter) - self.empty
        good = held <= needs.awake * TOLERANCE
        notes.add("bytes awake", held, "bytes", planned=needs.awake, good=good)
        self._note_host(notes, needs.processes)
        self._note_processes(notes)

    def _note_processes(self, notes: Notes) -> None:
        if self.planned.card.kind == "cpu":
            return
        by_process = self.meter.bytes_by_process()
        of_replica = by_process.get(self.engine.pid, 0)
        if not by_process:
            notes.add("bytes by process", None, note="the driver tells no bytes by process")
            return
        note = ", ".join(f"{pid}: {gib(count)}" for pid, count in sorted(by_process.items()))
        good = of_replica <= LEFT
        what = "bytes of the replica's own process"
        notes.add(what, of_replica, "bytes", planned=0, good=good, note=note)

    async def note_speed(self, notes: Notes) -> None:
        """The tokens per second of one sequence, and of as many as the engine takes."""
        planned, count = self.planned.speed, self.planned.needs.sequences
        alone = await self.speed(1)
        notes.add("one sequence", alone.decode, "tokens/s", planned=planned.single if planned else None)
        batch = await self.speed(count)
        of_plan = planned.batch if planned and planned.sequences == count else None
        notes.add(f"{count} sequences", batch.rate, "tokens/s", planned=of_plan)

    async def speed(self, sequences: int) -> Speed:
        """The speed of so many answers at once."""
        tokens = self.answer_tokens
        return as_speed(await self.engine.order("speed", sequences=sequences, tokens=tokens))

    async def sleep(self, notes: Notes) -> None:
        """Fall asleep: seconds, bytes left on the card, and RAM of the host."""
        self._require_host()
        needs = self.planned.needs
        began = _now()
        await self.engine.order("sleep")
        seconds = _now() - began
        left = await settled_bytes(self.meter) - self.empty
        notes.add("seconds to fall asleep", seconds, "s")
        good = left <= needs.asleep * TOLERANCE if needs.sleeps else None
        notes.add("bytes left on the card", left, "bytes", planned=needs.asleep, good=good)
        self._note_host(notes, needs.parked)

    def _note_host(self, notes: Notes, planned: int) -> None:
        """The RAM that the engine takes of the host, where the plan counts it beside the card."""
        host = self.meter.host()
        taken = host.used - self.host_before
        good = taken <= planned * TOLERANCE + LEFT if planned else None
        note = f"resident in all processes: {gib(host.resident)}"
        what = "RAM of the host"
        notes.add(what, taken, "bytes", planned=planned or None, good=good, note=note)

    def _require_host(self) -> None:
        """Sleep only if the host has the RAM for it, else the system would kill somebody."""
        needs, host = self.planned.needs, self.meter.host()
        total = max(host.total, self.planned.card.host_bytes or 0)
        more, free = needs.parked - needs.processes, total - host.used - HOST_RESERVE
        if more > free:
            raise SkipStep(f"sleep takes {gib(more)} of the host's RAM, and {gib(free)} are free")

    async def wake(self, notes: Notes) -> None:
        """Wake up: seconds, rate over the link, bytes, and the same answer as before."""
        began = _now()
        await self.engine.order("wake")
        seconds = _now() - began
        planned = self.planned
        notes.add("seconds to wake", seconds, "s", planned=planned.wake_s)
        link = planned.card.link
        if link and seconds:
            rate = planned.needs.weights / seconds / 1e9
            notes.add("weights over the link", rate, "GB/s", planned=link / 1e9)
        text = await self.engine.order("answer")
        held = await settled_bytes(self.meter) - self.empty
        good = held <= planned.needs.awake * TOLERANCE
        notes.add("bytes awake again", held, "bytes", planned=planned.needs.awake, good=good)
        same = text == self.text
        note = "" if same else f"before: {self.text!r}, after: {text!r}"
        notes.add("same answer as before sleep", "yes" if same else "no", "text", good=same, note=note)

    async def stop(self, notes: Notes) -> None:
        """Stop the engine; the process lives on."""
        began = _now()
        await self.engine.order("stop")
        notes.add("seconds until it stopped", _now() - began, "s")
        await self._note_back(notes, self.idle)

    async def kill(self, notes: Notes) -> None:
        """Kill the engine's process without a chance to clean up."""
        killed = await self.engine.kill()
        gone = not killed.alive
        what = f"of {killed.children} processes alive after the kill"
        notes.add(what, killed.alive, planned=0, good=gone)
        notes.add("seconds until they were gone", killed.seconds, "s", good=gone)
        await self._note_back(notes, self.empty)

    async def _note_back(self, notes: Notes, before: int) -> None:
        seconds = await seconds_until(self.meter, before + LEFT)
        note = "" if seconds is not None else f"it was not back after {BACK_S:.0f} s"
        good = seconds is not None
        notes.add("seconds until its memory was back", seconds, "s", good=good, note=note)
        left = await settled_bytes(self.meter) - before
        notes.add("bytes left", left, "bytes", planned=0, good=left <= LEFT)


def as_speed(found: object) -> Speed:
    """A speed as the holder of an engine tells it."""
    if not isinstance(found, dict):
        raise HolderError(f"{found!r} is no speed")
    return Speed(**found)


def _now() -> float:
    return asyncio.get_running_loop().time()
