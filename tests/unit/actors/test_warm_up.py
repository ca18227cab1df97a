"""Warm-ups of a replica: they are in no call's way, and each of them ends. The clock jumps."""

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest

from actors.engine import NONE, Delta, Message
from actors.keeper.call_queue import CallQueue
from actors.replica import Replica
from cluster.residency.state import TurnState
from configs.errors import EngineUnavailable
from configs.schema import Sampling, ScriptedModel

pytestmark = [pytest.mark.virtual_time, pytest.mark.usefixtures("engine")]
MESSAGES: list[Message] = [{"role": "user", "content": "hello"}]
STEP_S = 0.5
"""Seconds of a prefill step. An engine ends a warm-up only at the end of a step."""
READ_S = 10.0
"""Seconds that a whole warm-up takes."""


class SteppingEngine:
    """Reads prompts in steps that cannot be cut, as llama.cpp does. A call takes 2 s."""

    can_warm = True

    def __init__(self) -> None:
        self.warming = self.calls = 0
        self.beside = False
        """Whether a call and a warm-up were at work at the same time."""
        self.began: list[float] = []
        """When the engine began to work on each call."""
        self.is_dead = False

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def check_health(self) -> None:
        if self.is_dead:
            raise EngineUnavailable("gone")

    async def token_ends(self, prompt: object, _template: object = None) -> list[int]:
        return list(range(len(str(prompt))))

    async def warm(self, _messages: Sequence[Message], _template: Mapping[str, Any] = NONE) -> int:
        loop = asyncio.get_running_loop()
        self.warming += 1
        began = loop.time()
        try:
            self.beside |= self.calls > 0
            await asyncio.sleep(READ_S)
            if self.is_dead:
                raise EngineUnavailable("gone")
            return 7
        finally:
            done = loop.time() - began
            rest_s = math.ceil(done / STEP_S) * STEP_S - done
            while rest_s > 0:  # a cancellation does not end the step
                until = loop.time() + rest_s
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(rest_s)
                rest_s = until - loop.time()
            self.warming -= 1

    async def stream(
        self, _messages: object, _sampling: object, _streamed: bool = True
    ) -> AsyncGenerator[Delta]:
        self.beside |= self.warming > 0
        self.began.append(asyncio.get_running_loop().time())
        self.calls += 1
        try:
            await asyncio.sleep(2)
            yield Delta(text="hi")
            yield Delta(finish_reason="stop", completion_tokens=1)
        finally:
            self.calls -= 1


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> SteppingEngine:
    engine = SteppingEngine()
    monkeypatch.setattr("actors.replica.engines.create", lambda *_: engine)
    return engine


async def replica_of(*, on_gpu: bool = False, concurrency: int = 2, queue: int = 1) -> Replica:
    """A replica of the engine, which is up. No keeper delays its calls."""
    model = ScriptedModel(engine="scripted", concurrency=concurrency)
    replica = Replica("small", model, queue)
    if on_gpu:
        replica._warm_ups._alone = False
    await replica.start()
    return replica


async def ask(replica: Replica) -> float:
    """Make a call; return how long it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert [delta async for delta in replica.stream(MESSAGES, Sampling())]
    return loop.time() - began


def warm(replica: Replica) -> "asyncio.Task[int | None]":
    return asyncio.create_task(replica.warm(MESSAGES))


async def test_a_warm_up_of_an_idle_engine_is_no_call(engine: SteppingEngine) -> None:
    replica = await replica_of()
    assert await warm(replica) == 7
    stats = await replica.stats()
    assert (stats.warmed_tokens, stats.warm_cancelled) == (7, 0)
    assert (stats.started, stats.in_flight, stats.completion_tokens) == (0, 0, 0)
    assert engine.warming == 0


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.49, 0.5, 3.3])
@pytest.mark.parametrize("concurrency", [2, 4])
async def test_on_a_cpu_a_call_waits_for_one_step_at_most_and_never_beside(
    engine: SteppingEngine, after_s: float, concurrency: int
) -> None:
    replica = await replica_of(concurrency=concurrency)
    warming = warm(replica)
    await asyncio.sleep(after_s)
    arrived = asyncio.get_running_loop().time()
    took = await ask(replica)
    assert engine.began[0] - arrived <= STEP_S
    assert took <= 2 + STEP_S
    assert await warming is None
    assert not engine.beside
    assert (await replica.stats()).warm_cancelled == 1


async def test_on_a_cpu_no_warm_up_begins_beside_a_call(engine: SteppingEngine) -> None:
    replica = await replica_of(concurrency=4)
    call = asyncio.create_task(ask(replica))
    await asyncio.sleep(1)
    assert await warm(replica) is None
    assert await call == 2
    assert engine.beside is False


async def test_on_a_gpu_a_call_with_room_is_not_delayed_at_all() -> None:
    replica = await replica_of(on_gpu=True, concurrency=3)
    warming = warm(replica)
    await asyncio.sleep(0.1)
    assert await ask(replica) == 2
    assert await warming == 7


async def test_on_a_gpu_the_first_call_without_room_ends_the_warm_up() -> None:
    replica = await replica_of(on_gpu=True, concurrency=2, queue=0)
    warming = warm(replica)
    await asyncio.sleep(0.1)
    first, second = asyncio.create_task(ask(replica)), asyncio.create_task(ask(replica))
    assert await first == 2
    assert await second <= 2 + STEP_S  # the call was not refused, although no call may wait
    assert await warming is None


@pytest.mark.parametrize(
    ("on_gpu", "concurrency", "calls"), [(True, 3, 2), (True, 2, 1), (False, 1, 0)]
)
async def test_a_warm_up_always_leaves_room_for_a_call(
    on_gpu: bool, concurrency: int, calls: int
) -> None:
    replica = await replica_of(on_gpu=on_gpu, concurrency=concurrency)
    asked = [asyncio.create_task(ask(replica)) for _ in range(calls)]
    await asyncio.sleep(0.1)
    assert await warm(replica) is None
    assert await asyncio.gather(*asked) == [2.0] * calls
    assert (await replica.stats()).warm_cancelled == 0


async def test_there_is_one_warm_up_at_a_time() -> None:
    replica = await replica_of(concurrency=8)
    warming = warm(replica)
    await asyncio.sleep(0)
    assert await warm(replica) is None
    assert await warming == 7
    assert await warm(replica) == 7


async def test_the_call_of_a_warm_up_that_is_given_up_waits_for_what_was_read(
    engine: SteppingEngine,
) -> None:
    """llama.cpp keeps the prompt in a slot, and this slot is not free before the warm-up has ended."""
    replica = await replica_of(on_gpu=True, concurrency=4)
    warming = warm(replica)
    await asyncio.sleep(0.7)
    warming.cancel()
    assert await asyncio.create_task(ask(replica)) == pytest.approx(2 + 0.3)
    assert not engine.beside
    assert warming.cancelled()
    assert (await replica.stats()).warm_cancelled == 1


async def test_a_warm_up_that_is_given_up_twice_leaves_room_for_the_next(
    engine: SteppingEngine,
) -> None:
    """The caller cancels its warm-up, and loses its connection before the engine's step has ended."""
    replica = await replica_of(concurrency=4)
    warming = warm(replica)
    for after_s in (0.6, 0.1, 0.1):
        await asyncio.sleep(after_s)
        warming.cancel()
    await asyncio.wait([warming])
    assert (engine.warming, warming.cancelled()) == (0, True)
    assert await warm(replica) == 7
    stats = await replica.stats()
    assert (stats.warming, stats.warm_cancelled, stats.warmed_tokens) == (0, 1, 7)


async def test_a_warm_up_of_an_engine_that_dies_fails_and_calls_know_nothing_of_it(
    engine: SteppingEngine,
) -> None:
    replica = await replica_of()
    warming = warm(replica)
    await asyncio.sleep(0)
    engine.is_dead = True
    with pytest.raises(EngineUnavailable):
        await warming
    engine.is_dead = False
    assert await ask(replica) == 2
    assert (await replica.stats()).failed == 0


async def test_an_engine_that_cannot_warm_does_not(engine: SteppingEngine) -> None:
    replica = await replica_of()
    engine.can_warm = False
    assert await warm(replica) is None


@pytest.fixture
async def queue() -> CallQueue:
    return CallQueue(4, lambda: None)


async def test_a_warm_up_runs_only_in_an_open_turn_and_its_end_closes_it(queue: CallQueue) -> None:
    ended: list[bool] = []
    assert not queue.begin_warm_up(lambda: ended.append(True), alone=False)  # no turn yet
    queue.cutoff = queue.lease_until = math.inf
    assert queue.begin_warm_up(lambda: ended.append(True), alone=False)
    assert (queue.in_flight, queue.counts.in_flight) == (1, 0)  # no reason to stay awake
    queue.cutoff = asyncio.get_running_loop().time()
    queue.start_calls()
    assert ended == [True]
    assert (queue.turn, queue.drained.is_set()) == (TurnState.CLOSING, False)
    queue.end_warm_up()
    assert (queue.turn, queue.drained.is_set()) == (TurnState.CLOSED, True)
