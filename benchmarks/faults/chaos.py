"""Load at 70% of capacity while every kind of process is killed, one after another, in random order.

    python -m benchmarks.faults.chaos [--minutes 30] [--cards 4] [--seed 1] [--json FILE] [--plot SVG]

A simulated cluster (nodes with a card each, and a head without) serves three proposers and an
aggregator, a replica of each per card, and two ingresses. With two cards the load is 1.4 times what is
left when a node is lost, with four 0.93 times. SIGKILL hits a model's actor, the server of an
engine that runs outside of its replica, a keeper, an ingress, Serve's controller and a node;
the next one comes when all is whole again, the requests of that time have ended, and a while has
passed. Clients are OpenAI's own, with its two retries, and every second answer is streamed. A stream
whose connection is killed is lost to it: that is counted by itself, and must have such a cause. Each
answer is compared with what the mixture makes of the proposals that it says came: the scripted models
draw their words from model, seed and prompt.
"""

import asyncio
import itertools
import math
import random
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.faults.chaos_cluster import INGRESSES, KINDS, Chaos, Killed, busy, chaos, replica_stats
from benchmarks.faults.chaos_figures import Blow, cut, draw, rows, share, wrong
from benchmarks.faults.chaos_models import DEADLINE_S, call_s, slots
from benchmarks.shared.harness import Limit, report, run
from benchmarks.shared.memory import MemoryLog, growth
from benchmarks.shared.open_loop import Load, Outcomes, arrivals, client_process, offer, saturated
from benchmarks.shared.outcome import Outcome

LOAD = 0.7
ANSWERED, AVAILABLE = "share answered, but for streams whose connection was killed", 0.99
FLAT = 1.1
CROWD = 16
"""Requests at once for each slot: more than can run and wait."""
LAST_S = 15.0
"""No kill comes so shortly before the end."""
WHOLE_S = 90.0
POLL_S = 0.5
CAPACITY_CALLS = 5
"""Capacity is measured over the time of so many engine calls."""
ERROR_CHARACTERS = 200
DRAINED_S = 10.0

say = partial(print, flush=True)


def in_turn(chance: random.Random) -> Iterator[str]:
    """All kinds in random order, and again in another."""
    for _ in itertools.count():
        yield from chance.sample(KINDS, len(KINDS))


class Run:
    """One run: the load goes on in its own process while this one kills."""

    def __init__(
        self, target: Chaos, found: Outcomes, seconds: float, pause_s: float, seed: int
    ) -> None:
        self._pause_s = pause_s
        self._target = target
        self._found = found
        self._end = time.monotonic() + seconds
        self._chance = random.Random(seed)
        self._killed: list[tuple[Killed, float | None]] = []
        self.memory = MemoryLog()
        self.together = 0
        """Kills after which all ingresses were on one node: the next loss would take all of them."""

    def go(self, load: Future[None]) -> list[Blow]:
        """Kill until the end, and return when the load has ended too."""
        kinds = in_turn(self._chance)
        self._pause()
        while time.monotonic() < self._end - LAST_S and not load.done():
            killed = self._target.kill(next(kinds), self._chance)
            if killed is not None:
                whole = self._until(lambda: not self._target.lacks(), WHOLE_S)
                self._killed.append((killed, time.monotonic() if whole else None))
                self.together += len(self._target.ingress_nodes()) < INGRESSES
                self._tell()
                self._pause()
        self._until(load.done, math.inf)
        load.result()
        untils = [killed.at for killed, _ in self._killed[1:]] + [self._end]
        return [Blow(k, w, until) for (k, w), until in zip(self._killed, untils, strict=True)]

    def _pause(self) -> None:
        """Let what the last kill has done to requests end, and a while of peace pass."""
        now = time.monotonic()
        self._until(lambda: self._found.has_all_due(now), self._end - LAST_S - now)
        until = time.monotonic() + self._chance.uniform(0, 2 * self._pause_s)
        self._until(lambda: time.monotonic() > until, math.inf)

    def _until(self, look: Callable[[], bool], give_up_s: float) -> bool:
        """Whether it came to that in time. The memory is looked at meanwhile."""
        give_up = time.monotonic() + give_up_s
        while not (done := look()) and time.monotonic() < give_up:
            self.memory.look(self._target.processes())
            time.sleep(POLL_S)
        return done

    def _tell(self) -> None:
        killed, whole_at = self._killed[-1]
        found = self._found()
        failed = sum(not outcome.is_answered for outcome in found)
        degraded = sum(outcome.is_degraded for outcome in found)
        again = sum(len(outcome.attempts) > 1 for outcome in found)
        took = "not whole" if whole_at is None else f"whole after {whole_at - killed.at:.1f} s"
        say(
            f"{self._end - time.monotonic():.0f} s left: {killed.kind} killed ({killed.what}), {took}; "
            f"{len(found)} requests ended: {again} retried, {degraded} degraded, {failed} failed"
        )


class Slots:
    """What there is room for, before and after: whether anything is held though nobody asks."""

    def __init__(self, pool: ProcessPoolExecutor, idle: Load, target: Chaos, folder: Path) -> None:
        self._pool, self._idle, self._target, self._folder = pool, idle, target, folder
        self._let_in = self._burst(idle.model, CROWD)

    def leaked(self) -> list[str]:
        """Calls at replicas; places that a crowd no longer gets; models that do not answer."""
        give_up = time.monotonic() + DRAINED_S
        while (held := busy(replica_stats())) and time.monotonic() < give_up:
            time.sleep(POLL_S)
        lost = self._let_in - self._burst(self._idle.model, CROWD)
        held += [f"{lost} of {self._let_in} places of the mixture"] if lost > 0 else []
        wanted = slots(self._target.cards)
        for model in self._target.recipe.models:
            if lost := wanted - self._burst(model, 1):
                held.append(f"{lost} of {wanted} slots of {model}")
        return held

    def _burst(self, model: str, per_slot: int) -> int:
        """How many are let in of so many at once, while none of them can have ended."""
        due_s = (0.0,) * (per_slot * slots(self._target.cards))
        burst, file = replace(self._idle, model=model, due_s=due_s), self._folder / uuid.uuid4().hex
        offer(self._pool, burst, file).result()
        return sum(outcome.is_answered for outcome in Outcomes(burst, file)())


def limits_of(
    found: Sequence[Outcome], blows: Sequence[Blow], faults: dict[str, int], memory: MemoryLog
) -> list[Limit]:
    """What a run must hold. faults: those that may not be."""
    killed = {o.number for o in cut(found, blows, explained=True)}
    others = [o for o in found if o.number not in killed]
    answered = share(others, lambda o: o.is_answered)
    limits = [Limit(ANSWERED, answered, AVAILABLE, at_least=True)]
    limits += [Limit(name, count, 0) for name, count in faults.items()]
    for name, lasting in {"processes that lasted": True, "all processes": False}.items():
        ratio = growth(memory.samples, lasting=lasting)
        limits.append(Limit(f"memory of {name}, last third over first", ratio, FLAT))
    return limits


def main(
    *,
    minutes: Annotated[float, typer.Option(min=0.5, help="Of load.")] = 30,
    cards: Annotated[int, typer.Option(min=2, help="And nodes; engines are the slower.")] = 4,
    pause_s: Annotated[float, typer.Option(min=0, help="Of peace before a kill, on average.")] = 15,
    seed: Annotated[int, typer.Option(help="Of the arrivals, and of what is killed.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the run here (.svg, .png).")] = None,
) -> None:
    """Kill every kind of process under load; setting up takes about a minute."""
    seconds = 60 * minutes
    with tempfile.TemporaryDirectory(prefix="slimmoa-chaos-") as name, client_process() as pool:
        folder = Path(name)
        with chaos(cards) as target:
            idle = Load(target.url, target.recipe.name, (), DEADLINE_S)
            capacity = saturated(pool, idle, 4 * slots(cards), CAPACITY_CALLS * call_s(cards))
            say(f"capacity {capacity:.2f} answers/s; load at {LOAD:g} of it for {seconds:g} s")
            room = Slots(pool, idle, target, folder)
            due_s = arrivals(LOAD * capacity, seconds, seed)
            load = replace(idle, due_s=due_s, client="openai", streamed=True)
            so_far = Outcomes(load, folder / "outcomes.jsonl")
            going = Run(target, so_far, seconds, pause_s, seed)
            blows = going.go(offer(pool, load, folder / "outcomes.jsonl"))
            held = room.leaked()
        found = so_far()
    for error, times in Counter(o.error[:ERROR_CHARACTERS] for o in found if o.error).most_common():
        say(f"{times} failed: {error}")
    mistaken = asyncio.run(wrong(found, target.recipe))
    for what in [*held, *map(str, mistaken)]:
        say(f"leaked or wrong: {what}")
    odd = cut(found, blows, explained=False)
    for outcome in odd:
        kills = [f"{b.killed.kind} at {b.killed.at:.2f}" for b in blows if b.concerns(outcome)]
        say(f"cut without a kill: {outcome.attempts[-1]}; the last one was of {kills or 'none'}")
    if plot:
        draw(plot, found, blows, min(o.due for o in found))
    faults = {
        "wrong answers": len(mistaken),
        "hung requests": sum(outcome.is_hung for outcome in found),
        "leaked slots": len(held),
        "streams cut without a kill": len(odd),
        "kills after which not all came back": sum(blow.whole_at is None for blow in blows),
        "times that ingresses shared a node": going.together,
        "requests without an outcome": len(due_s) - len(found),
    }
    title = f"Chaos: {minutes:g} minutes at {LOAD:g} x {capacity:.2f} answers/s, seed {seed}"
    report(title, rows(found, blows), limits_of(found, blows, faults, going.memory), json)


if __name__ == "__main__":
    run(main)
