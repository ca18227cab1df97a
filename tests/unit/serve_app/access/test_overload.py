"""Overload in virtual time: admitted requests are answered soon and whole, others refused at once."""

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
class Outcome:
    """What became of the requests."""

    answered_s: list[float] = field(default_factory=list)
    """Seconds that each answer took."""
    refused_s: list[float] = field(default_factory=list)
    """Seconds that each refusal took."""
    degraded: int = 0

    @property
    def p99_s(self) -> float:
        return sorted(self.answered_s)[int(0.99 * len(self.answered_s))]


async def offer(load: float) -> Outcome:
    """Sends requests at random (Poisson) for SECONDS. Any other failure than Overloaded fails the test.

    Args:
        load: requests in relation to what the models can do.
    """
    mixture, outcome, draw = recipe(), Outcome(), random.Random(1)
    models = Scripted(mixture)
    capacity = {name: mixture.capacity_per_replica(name) for name in mixture.models}
    control = AdmissionControl(capacity)
    await models.start()
    clock = asyncio.get_running_loop().time
    demand = Demand(ANYONE, mixture.calls_at_once("mix"), 10, shares_capacity=False)

    async def ask() -> None:
        began = clock()
        answer = moa.answer(QUESTION, mixture, models, stream_proposals=False)
        try:
            events = [event async for event in admitted_events(answer, control, demand, clock)]
        except Overloaded:
            outcome.refused_s.append(clock() - began)
            return
        done = events[-1]
        assert isinstance(done, AnswerDone)
        outcome.degraded += done.summary.degraded
        outcome.answered_s.append(clock() - began)

    until = clock() + SECONDS
    async with asyncio.TaskGroup() as asking:
        while clock() < until:
            asking.create_task(ask())
            await asyncio.sleep(draw.expovariate(load * CAPACITY_PER_S))
    return outcome


async def test_at_three_times_the_capacity_admitted_requests_take_little_longer_than_below_it() -> None:
    below, above = await offer(0.9), await offer(3.0)
    assert len(below.refused_s) <= 0.01 * len(below.answered_s)
    assert above.p99_s <= 1.5 * below.p99_s
    assert max(above.refused_s) == 0
    assert (below.degraded, above.degraded) == (0, 0)
    assert len(above.answered_s) >= 0.95 * CAPACITY_PER_S * SECONDS
