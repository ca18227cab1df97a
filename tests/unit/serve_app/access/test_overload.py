"""Overload in virtual time: who is let in is answered soon and whole, others are refused at once."""

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from configs.access import Allowance
from configs.errors import Overloaded
from configs.schema import Recipe
from serve_app.access.admission import AdmissionControl, Demand, admitted_events
from serve_app.access.api_keys import Key
from serve_app.mixture import moa
from serve_app.mixture.events import AnswerDone
from tests.unit.serve_app.conftest import Scripted
from tests.unit.serve_app.mixture.conftest import QUESTION

pytestmark = pytest.mark.virtual_time

CONCURRENCY, CALL_S = 8, 1.0
CAPACITY_PER_S = CONCURRENCY / CALL_S
SECONDS = 40
ANYONE = Key("anyone", b"", Allowance())


def recipe() -> Recipe:
    model = {"engine": "scripted", "concurrency": CONCURRENCY, "tokens": 2}
    model |= {"first_token_s": CALL_S / 2, "token_s": CALL_S / 2}
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": dict.fromkeys(("one", "two", "writer"), model),
            "layers": [{"proposers": [{"model": "one"}, {"model": "two"}]}],
            "aggregator": {"model": "writer"},
        }
    )


@dataclass
class Came:
    """What became of the requests. seconds: of each answer; refused_s: of each refusal."""

    seconds: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    degraded: int = 0

    @property
    def p99_s(self) -> float:
        return sorted(self.seconds)[int(0.99 * len(self.seconds))]


async def offered(times_capacity: float) -> Came:
    """Requests at random (Poisson) for SECONDS; whatever fails is an error of the test."""
    mixture, came, draw = recipe(), Came(), random.Random(1)
    models = Scripted(mixture)
    ledger = AdmissionControl({name: mixture.capacity_per_replica(name) for name in mixture.models})
    await models.start()
    clock = asyncio.get_running_loop().time
    claim = Demand(ANYONE, mixture.calls_at_once("mix"), 10, has_rivals=False)

    async def ask() -> None:
        began = clock()
        answer = moa.answer(QUESTION, mixture, models, watched=False)
        try:
            events = [event async for event in admitted_events(answer, ledger, claim, clock)]
        except Overloaded:
            came.refused_s.append(clock() - began)
            return
        done = events[-1]
        assert isinstance(done, AnswerDone)
        came.degraded += done.summary.degraded
        came.seconds.append(clock() - began)

    until = clock() + SECONDS
    async with asyncio.TaskGroup() as asking:
        while clock() < until:
            asking.create_task(ask())
            await asyncio.sleep(draw.expovariate(times_capacity * CAPACITY_PER_S))
    return came


async def test_at_three_times_the_capacity_who_is_let_in_waits_little_longer_than_below_it() -> None:
    below, above = await offered(0.9), await offered(3.0)
    assert len(below.refused_s) <= 0.01 * len(below.seconds)
    assert above.p99_s <= 1.5 * below.p99_s
    assert max(above.refused_s) == 0
    assert (below.degraded, above.degraded) == (0, 0)
    assert len(above.seconds) >= 0.95 * CAPACITY_PER_S * SECONDS
