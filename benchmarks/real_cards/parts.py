"""The parts of a check that measure engines without Ray: one engine alone, and two side by side."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from benchmarks.real_cards.measure import MakeEngine, Subject, as_speed
from benchmarks.real_cards.meters import Meter, settled_bytes
from benchmarks.real_cards.planned import Machine, plan_models
from benchmarks.real_cards.steps import Notes, Part, Step

BRIEF_S = 5.0
"""Expected seconds of a step that only moves memory or measures speed."""
START_S, LARGE_START_S = 75.0, 100.0
"""Expected seconds of a start with vLLM's compilation: of a small model, and of a 70B-class one."""
WARM_START_S = 50.0
"""Expected seconds of a start whose compilation is in the cache."""
SLEEP_S = 12.0
"""Expected seconds of a first sleep, which pins RAM at about 4 GiB/s, for a 70B-class model."""
STREAM_S = 1.0
"""Seconds that a neighbour streams before the step that it is beside."""

Run = Callable[[Notes], Awaitable[None]]
"""What a step does."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What all parts work on."""

    machine: Machine
    meter: Meter
    make_engine: MakeEngine

    def expected(self, seconds: float) -> float:
        """Expected seconds of a step, given those with models in true shapes on vLLM."""
        return min(seconds, BRIEF_S) if self.machine.tiny == "llamacpp" else seconds

    def subjects(self, wanted: dict[str, str]) -> list[Subject]:
        """The engines of models, not started. Raises what `plan_models` raises."""
        return [
            Subject(planned, self.make_engine(planned), self.meter, self.machine.answer_tokens)
            for planned in plan_models(self.machine, wanted)
        ]


class Alone(Part):
    """One engine: does it start, sleep, wake and die cleanly, and what does each cost?"""

    def __init__(self, bench: Bench, name: str, source: str) -> None:
        self.name = name
        self._bench = bench
        self._source = source
        self._subject: Subject | None = None

    def steps(self) -> Sequence[Step]:
        brief = BRIEF_S
        first, again = self._bench.expected(START_S), self._bench.expected(WARM_START_S)
        return (
            Step("plan", self._plan, 1),
            Step("start", self._start, first, after=("plan",)),
            Step("sleep", self._of(Subject.sleep), brief, after=("start",)),
            Step("wake", self._of(Subject.wake), brief, after=("sleep",)),
            Step("second sleep", self._of(Subject.sleep), brief, after=("wake",)),
            Step("second wake", self._of(Subject.wake), brief, after=("second sleep",)),
            Step("speed", self._of(Subject.note_speed), brief, after=("start",)),
            Step("kill -9", self._of(Subject.kill), brief, after=("start",)),
            Step("start again", self._start, again, after=("kill -9",)),
            Step("stop", self._of(Subject.stop), brief, after=("start again",)),
        )

    async def close(self) -> None:
        if self._subject is not None:
            await self._subject.engine.close()

    def _of(self, step: Callable[[Subject, Notes], Awaitable[None]]) -> Run:
        async def run(notes: Notes) -> None:
            assert self._subject is not None
            await step(self._subject, notes)

        return run

    async def _plan(self, _notes: Notes) -> None:
        (self._subject,) = self._bench.subjects({self.name: self._source})

    async def _start(self, notes: Notes) -> None:
        assert self._subject is not None
        await self._subject.spawn()
        await self._subject.start(notes)


class Pair(Part):
    """Two engines on one card: one stays awake, the other starts, sleeps and wakes beside it."""

    def __init__(
        self, bench: Bench, resident: tuple[str, str], other: tuple[str, str], *, large: bool = False
    ) -> None:
        self.name = f"{resident[0]} + {other[0]}"
        self._bench = bench
        self._wanted = dict([resident, other])
        self._large = large
        self._subjects: list[Subject] = []

    def steps(self) -> Sequence[Step]:
        one, two = (f"start {name}" for name in self._wanted)
        bench, brief = self._bench, BRIEF_S
        start_two = bench.expected(LARGE_START_S if self._large else START_S)
        sleep = bench.expected(SLEEP_S) if self._large else brief
        sleeps, wakes = "second sleep, the other streams", "second wake, the other streams"
        return (
            Step("plan", self._plan, 1),
            Step(one, self._start(0), bench.expected(START_S), after=("plan",)),
            Step(two, self._start(1), start_two, after=(one,)),
            Step("sleep", self._sleep, sleep, after=(two,)),
            Step("wake", self._wake, brief, after=("sleep",)),
            Step(sleeps, self._beside(self._sleep), brief + STREAM_S, after=("wake",)),
            Step(wakes, self._beside(self._wake), brief + STREAM_S, after=(sleeps,)),
            Step("speed", self._speeds, 2 * brief, after=(two,)),
            Step("stop", self._stop, 2 * brief, after=(two,)),
        )

    async def close(self) -> None:
        await asyncio.gather(*[subject.engine.close() for subject in self._subjects])

    async def _plan(self, _notes: Notes) -> None:
        self._subjects = self._bench.subjects(self._wanted)

    def _start(self, number: int) -> Run:
        async def run(notes: Notes) -> None:
            await self._subjects[number].spawn()
            await self._subjects[number].start(notes)

        return run

    async def _sleep(self, notes: Notes) -> None:
        await self._subjects[1].sleep(notes)

    async def _wake(self, notes: Notes) -> None:
        await self._subjects[1].wake(notes)

    def _beside(self, step: Run) -> Run:
        """The step while the resident streams one answer after the other."""

        async def run(notes: Notes) -> None:
            streaming = self._subjects[0]
            alone = await streaming.speed(1)
            await streaming.engine.order("stream", tokens=streaming.answer_tokens)
            try:
                await asyncio.sleep(STREAM_S)
                await step(notes)
            finally:
                beside = as_speed(await streaming.engine.order("halt"))
            name = streaming.name
            notes.add(f"{name} meanwhile", beside.rate, "tokens/s", note=f"alone {alone.rate:.1f}")
            gap = f"alone {alone.longest_gap_s:.2f} s"
            notes.add(f"{name}: longest gap meanwhile", beside.longest_gap_s, "s", note=gap)

        return run

    async def _speeds(self, notes: Notes) -> None:
        """The speed of each while the other is awake and idle, and of both at once."""
        counts = [subject.planned.needs.sequences for subject in self._subjects]
        pairs = list(zip(self._subjects, counts, strict=True))
        alone = [await subject.speed(count) for subject, count in pairs]
        both = await asyncio.gather(*[subject.speed(count) for subject, count in pairs])
        for (subject, count), single, beside in zip(pairs, alone, both, strict=True):
            what = f"{subject.name}, {count} sequences"
            notes.add(f"{what}, the other idle", single.rate, "tokens/s")
            notes.add(f"{what}, both at once", beside.rate, "tokens/s")

    async def _stop(self, notes: Notes) -> None:
        for subject in reversed(self._subjects):
            await subject.stop(notes)
            await subject.engine.close()
            await settled_bytes(subject.meter, subject.empty)
