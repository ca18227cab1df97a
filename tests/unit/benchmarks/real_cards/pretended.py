"""A pretended GPU with its machine, and engines that only say what they take of both."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.real_cards import dummy_models
from benchmarks.real_cards.holder import HolderError, Killed
from benchmarks.real_cards.meters import HostMemory
from benchmarks.real_cards.parts import Bench
from benchmarks.real_cards.planned import Machine, Planned
from benchmarks.real_cards.rows import Row, RowFile
from benchmarks.real_cards.steps import Budget, Part, run_part
from cluster.cards.card import GIB
from cluster.cards.catalog import card_by_name

PARENT = 4000
"""Process ID of the first engine's replica; its child has the next number."""


@dataclass
class PretendedCard:
    """Bytes of a card and of its machine by what takes them. It is a `Meter` too."""

    card: dict[str, int] = field(default_factory=dict)
    ram: dict[str, int] = field(default_factory=lambda: {"system": 4 * GIB})
    processes: dict[int, int] = field(default_factory=dict)
    total_ram: int = 128 * GIB

    def used_bytes(self) -> int:
        return sum(self.card.values())

    def bytes_by_process(self) -> dict[int, int]:
        return dict(self.processes)

    def host(self) -> HostMemory:
        return HostMemory(sum(self.ram.values()), 5 * GIB, self.total_ram)


@dataclass
class PretendedEngine:
    """Takes of the card exactly what is planned, unless told otherwise."""

    planned: Planned
    place: PretendedCard
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of an order; by default 1."""
    broken: dict[str, str | None] = field(default_factory=dict)
    """Orders that fail with this message, or that never end (None)."""
    awake_factor: float = 1.0
    """How many times the planned bytes the engine takes awake."""
    loading_bytes: int = 0
    """Bytes that it takes while it loads, beside those awake."""
    stays_s: float = 0.0
    """Seconds for which its bytes stay after its end."""
    answers: list[str] = field(default_factory=lambda: ["The Rhine"])
    """Its answers to the probe; the last one is given again and again."""
    orders: list[str] = field(default_factory=list)
    pid: int = 0
    is_closed: bool = False

    async def spawn(self) -> None:
        await self._do("spawn")
        self.pid = PARENT

    async def order(self, what: str, **_arguments: Any) -> Any:
        await self._do(what)
        needs = self.planned.needs
        match what:
            case "start":
                self.place.card[self.planned.name] = needs.awake + self.loading_bytes
                await asyncio.sleep(1)
                self._take(int(needs.awake * self.awake_factor))
            case "sleep":
                self._take(needs.asleep)
                self.place.ram[self.planned.name] = needs.parked
            case "wake":
                self._take(int(needs.awake * self.awake_factor))
            case "stop":
                self._let_go()
            case "answer":
                return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            case "speed" | "halt":
                return {"tokens": 128, "seconds": 2.0, "decode": 70.0, "longest_gap_s": 0.03}
        return None

    async def kill(self) -> Killed:
        await self._do("kill")
        self._let_go()
        return Killed(children=1, alive=0, seconds=0.4)

    async def close(self) -> None:
        self._let_go()
        self.is_closed = True

    async def _do(self, what: str) -> None:
        self.orders.append(what)
        if what in self.broken:
            if (message := self.broken[what]) is None:
                await asyncio.Event().wait()
            raise HolderError(message)
        await asyncio.sleep(self.seconds.get(what, 1.0))

    def _take(self, count: int) -> None:
        self.place.card[self.planned.name] = count
        self.place.processes = {PARENT: 0, PARENT + 1: count}

    def _let_go(self) -> None:
        def free() -> None:
            self.place.card.pop(self.planned.name, None)
            self.place.ram.pop(self.planned.name, None)

        if self.stays_s:
            asyncio.get_running_loop().call_later(self.stays_s, free)
        else:
            free()


@dataclass
class Pretended:
    """A bench on a pretended card, and the engines that were made on it."""

    folder: Path
    card_name: str = "H200-141GB"
    host_gib: int = 128
    changes: Callable[[PretendedEngine], None] = lambda _engine: None
    place: PretendedCard = field(default_factory=PretendedCard)
    engines: list[PretendedEngine] = field(default_factory=list)

    def bench(self, memory_bytes: int | None = None) -> Bench:
        card = replace(card_by_name(self.card_name), host_bytes=self.host_gib * GIB)
        self.place.total_ram = self.host_gib * GIB
        write = dummy_models.write_shape
        machine = Machine(card, self.folder, memory_bytes=memory_bytes, write=write)
        return Bench(machine, self.place, self._make)

    def _make(self, planned: Planned) -> PretendedEngine:
        engine = PretendedEngine(planned, self.place)
        self.changes(engine)
        self.engines.append(engine)
        return engine

    async def rows(self, part: Part, seconds: float = 600) -> list[Row]:
        """The rows of a part, as one call of so many seconds."""
        with RowFile(self.folder / "rows.jsonl") as file:
            await run_part(part, "first", file, Budget(seconds))
        return file.rows


def figure(rows: list[Row], step: str, what: str) -> Row:
    """The one row of that figure."""
    (row,) = [row for row in rows if (row.step, row.what) == (step, what)]
    return row
