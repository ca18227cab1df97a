"""A replica without Ray: its queue, its counts, and the way of a delta."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict
from typing import cast

import pytest

from actors.engine import Delta, Message, Share
from actors.keeper.protocol import Keeper
from actors.keeper.registration import Assignment
from actors.replica import Replica
from cluster.cards.memory import POLL_S, CardMemory
from cluster.residency.state import State
from configs.errors import EngineError, EngineUnavailable, Overloaded
from configs.schema import Sampling, ScriptedModel

MESSAGES: list[Message] = [{"role": "user", "content": "hello"}]
GREETING = [Delta(text="hi"), Delta(finish_reason="stop", completion_tokens=3)]


class LatchedEngine:
    """Each call waits for `go`, then gives the deltas of `script`; an exception in it is raised."""

    def __init__(self) -> None:
        self.script: list[Delta | Exception] = list(GREETING)
        self.go = asyncio.Event()
        self.running = asyncio.Semaphore(0)
        self.may_close = asyncio.Event()
        self.may_close.set()
        self.at_work = self.most_at_work = 0
        self.streamed: list[bool] = []

    async def stream(
        self, _messages: object, _sampling: object, streamed: bool
    ) -> AsyncGenerator[Delta]:
        self.streamed.append(streamed)
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        self.running.release()
        try:
            await self.go.wait()
            for item in self.script:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            await self.may_close.wait()
            self.at_work -= 1

    async def start(self) -> None:
        pass

    async def token_ends(self, prompt: object, _template: object = None) -> list[int]:
        return list(range(len(str(prompt))))

    async def check_health(self) -> None:
        raise EngineUnavailable("gone")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> LatchedEngine:
    engine = LatchedEngine()
    monkeypatch.setattr("actors.replica.engines.create", lambda *_: engine)
    return engine


@pytest.fixture
async def replica(engine: LatchedEngine) -> Replica:  # noqa: ARG001  # what it creates
    replica = Replica("small", ScriptedModel(engine="scripted", concurrency=2), queue=1)
    await replica.start()
    return replica


def ask(replica: Replica) -> asyncio.Task[list[Delta]]:
    async def answer() -> list[Delta]:
        return [delta async for delta in replica.stream(MESSAGES, Sampling())]

    return asyncio.create_task(answer())


async def fill(replica: Replica, engine: LatchedEngine) -> list[asyncio.Task[list[Delta]]]:
    """Make three calls: two are in flight and one waits."""
    calls = [ask(replica) for _ in range(3)]
    for _ in range(2):
        await engine.running.acquire()
    await asyncio.sleep(0)
    return calls


async def counts(replica: Replica) -> dict[str, int]:
    """The counts that are not zero."""
    stats = asdict(await replica.stats())
    assert (stats.pop("oldest_wait_s") > 0) == (stats["waiting"] > 0)
    return +Counter(stats)


async def test_concurrency_is_bounded_and_the_rest_waits(
    replica: Replica, engine: LatchedEngine
) -> None:
    calls = await fill(replica, engine)
    assert await counts(replica) == {"in_flight": 2, "waiting": 1, "started": 2}
    engine.go.set()
    await asyncio.gather(*calls)
    assert engine.most_at_work == 2
    assert await counts(replica) == {"started": 3, "finished": 3, "completion_tokens": 9}


async def test_a_full_queue_refuses_and_names_the_model(
    replica: Replica, engine: LatchedEngine
) -> None:
    calls = await fill(replica, engine)
    with pytest.raises(Overloaded, match="'small' is busy and 1 calls wait") as refusal:
        await ask(replica)
    assert refusal.value.model == "small"
    assert await counts(replica) == {"in_flight": 2, "waiting": 1, "started": 2}
    engine.go.set()
    await asyncio.gather(*calls)


async def test_the_answer_ends_with_the_engines_seconds(
    replica: Replica, engine: LatchedEngine
) -> None:
    engine.go.set()
    deltas = await ask(replica)
    assert deltas[-1].engine_s > 0
    assert [delta.engine_s for delta in deltas[:-1]] == [0] * (len(deltas) - 1)
    assert [delta.last for delta in deltas] == [False] * (len(deltas) - 1) + [True]
    assert "".join(delta.text for delta in deltas) == "hi"
    assert 0 < deltas[-1].first_s <= deltas[-1].engine_s


async def test_the_answer_ends_with_the_seconds_for_which_the_call_waited(
    replica: Replica, engine: LatchedEngine
) -> None:
    calls = await fill(replica, engine)
    engine.go.set()
    waited = [(await call)[-1].queue_s for call in calls]
    assert max(waited[:2]) < waited[2]


async def test_the_engine_is_told_whether_anybody_reads_along(
    replica: Replica, engine: LatchedEngine
) -> None:
    engine.go.set()
    for streamed in (True, False):
        assert [delta async for delta in replica.stream(MESSAGES, Sampling(), streamed)]
    assert (await replica.complete(MESSAGES, Sampling())).text == "hi"
    assert engine.streamed == [True, False, False]


@pytest.mark.virtual_time
async def test_each_delta_of_the_engine_is_passed_on_by_itself(
    replica: Replica, engine: LatchedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(*_: object) -> AsyncGenerator[Delta]:
        for n in range(12):
            yield Delta(text=f"{n} ")
            await asyncio.sleep(0.3)

    monkeypatch.setattr(engine, "stream", slow)
    loop = asyncio.get_running_loop()
    began = loop.time()
    came = [(d.text, round(loop.time() - began, 3)) async for d in replica.stream(MESSAGES, Sampling())]
    assert came == [*((f"{n} ", round(0.3 * n, 3)) for n in range(12)), ("", 3.6)]


@pytest.mark.parametrize("before", [[], [Delta(text="hi")]], ids=["first", "later"])
async def test_an_engines_error_passes_and_counts_as_failed(
    replica: Replica, engine: LatchedEngine, before: list[Delta]
) -> None:
    engine.script = [*before, EngineError("broken", model="small")]
    engine.go.set()
    with pytest.raises(EngineError, match="broken"):
        await ask(replica)
    assert await counts(replica) == {"started": 1, "failed": 1}


async def test_a_call_cancelled_while_it_waits_never_reaches_the_engine(
    replica: Replica, engine: LatchedEngine
) -> None:
    *running, waiting = await fill(replica, engine)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert await counts(replica) == {"in_flight": 2, "started": 2}
    engine.go.set()
    await asyncio.gather(*running)


async def test_a_cancelled_call_is_in_flight_until_the_engine_has_let_go(
    replica: Replica, engine: LatchedEngine
) -> None:
    engine.may_close.clear()
    call = ask(replica)
    await engine.running.acquire()
    call.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert await counts(replica) == {"in_flight": 1, "started": 1}
    engine.may_close.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await counts(replica) == {"started": 1, "cancelled": 1}


async def test_an_answer_that_is_closed_in_the_middle_counts_as_cancelled(
    replica: Replica, engine: LatchedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unfinished(
        _messages: object, _sampling: object, _streamed: bool
    ) -> AsyncGenerator[Delta]:
        yield Delta(text="hi")
        await asyncio.Event().wait()

    monkeypatch.setattr(engine, "stream", unfinished)
    stream = replica.stream(MESSAGES, Sampling())
    await anext(stream)
    await stream.aclose()
    assert await counts(replica) == {"started": 1, "cancelled": 1}


async def test_no_outcome_of_a_call_leaks_capacity(replica: Replica, engine: LatchedEngine) -> None:
    """More calls fail, are cancelled or refused than fit at once; then as many fit as at first."""
    for _ in range(3):
        calls = await fill(replica, engine)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
    engine.go.set()
    engine.script = [EngineError("broken")]
    for _ in range(3):
        with pytest.raises(EngineError):
            await ask(replica)
        await engine.running.acquire()
    engine.script = list(GREETING)
    engine.go.clear()
    calls = await fill(replica, engine)
    assert engine.at_work == 2
    engine.go.set()
    await asyncio.gather(*calls)


async def test_health_is_the_engines(replica: Replica) -> None:
    with pytest.raises(EngineUnavailable, match="gone"):
        await replica.check_health()


async def test_tokens_are_counted_by_the_engine(replica: Replica) -> None:
    assert await replica.token_ends(["ab", ""]) == [[0, 1], []]
    assert await replica.count_tokens(MESSAGES) == len(str(MESSAGES))


async def test_a_scripted_model_runs_in_a_replica_from_start_to_stop() -> None:
    model = ScriptedModel(engine="scripted", text="one two", first_token_s=0, token_s=0)
    replica = Replica("small", model, queue=0)
    await replica.start()
    await replica.check_health()
    deltas = await ask(replica)
    assert "".join(delta.text for delta in deltas) == "one two"
    await replica.stop()
    with pytest.raises(EngineUnavailable):
        await replica.check_health()


class CardEngine:
    """An engine on a card, which can sleep. It notes its steps with the time."""

    def __init__(self) -> None:
        self.done: list[tuple[str, float]] = []
        self.is_dead = False

    def _note(self, step: str) -> None:
        self.done.append((step, asyncio.get_running_loop().time()))

    async def start(self) -> None:
        self._note("start")

    async def sleep(self) -> None:
        self._note("sleep")

    async def wake(self) -> None:
        self._note("wake")

    async def stop(self) -> None:
        self._note("stop")

    async def check_health(self) -> None:
        if self.is_dead:
            raise EngineUnavailable("dead")

    async def check_asleep(self) -> None:
        await self.check_health()


class Meter:
    """So many bytes are free on each GPU from the times in `free_at` on."""

    def __init__(self, free_at: dict[float, int]) -> None:
        self.free_at = free_at

    async def free_bytes(self, gpus: Sequence[int]) -> list[int]:
        now = asyncio.get_running_loop().time()
        free = [bytes_free for at, bytes_free in self.free_at.items() if at <= now][-1]
        return [free for _ in gpus]


class OnCard:
    """A replica of a card whose keeper is played by hand: orders go straight to its turns."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, free_at: dict[float, int], unit: int = 1
    ) -> None:
        self.engine = CardEngine()
        monkeypatch.setattr("actors.replica.engines.create", lambda *_: self.engine)
        memory = CardMemory(gpus=(0, 1), start_bytes=100 * unit, wake_bytes=80 * unit)
        keeper = cast("Keeper", None)
        assignment = Assignment("m/0", keeper, Share(on_gpu=True, gpus=2), gpus=(0, 1), memory=memory)
        model = ScriptedModel(engine="scripted")
        self.replica = Replica("m", model, 1, assignment, meter=Meter(free_at))
        self.steps = self.replica._turns._steps
        self.turns = self.replica._turns

    def has_state(self, state: State) -> None:
        self.turns._enter(state)

    @property
    def state(self) -> str:
        return str(self.turns.state)


@pytest.mark.virtual_time
async def test_a_start_and_a_wake_wait_for_the_memory_that_they_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = OnCard(monkeypatch, {0: 10, 5: 99, 10: 100, 12: 20, 30: 80})
    await card.steps.start()
    await card.steps.sleep()
    await asyncio.sleep(3)
    await card.steps.wake()
    (start, start_at), (sleep, sleep_at), (wake, wake_at) = card.engine.done
    assert (start, sleep, wake) == ("start", "sleep", "wake")
    assert 10 <= start_at <= 10 + POLL_S
    assert sleep_at == start_at
    assert 30 <= wake_at <= 30 + POLL_S


@pytest.mark.virtual_time
async def test_a_card_that_stays_full_is_asked_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    card = OnCard(monkeypatch, {0: 2 << 20}, unit=1 << 30)
    for step in (card.steps.start, card.steps.wake):
        with pytest.raises(
            EngineUnavailable, match=r"has 0\.00 GiB free and the engine needs \d+\.00 GiB"
        ):
            await step()
    assert card.engine.done == []


async def test_an_engine_that_dies_asleep_is_reported_by_the_next_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = OnCard(monkeypatch, {0: 100})
    card.has_state(State.ASLEEP)
    await card.replica.check_health()
    assert card.state == "asleep"
    card.engine.is_dead = True
    await card.replica.check_health()
    assert card.state == "failed"


@pytest.mark.parametrize("state", [State.STOPPED, State.STARTING, State.WAKING, State.FALLING_ASLEEP])
async def test_an_engine_in_a_step_is_not_checked(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = OnCard(monkeypatch, {0: 100})
    card.has_state(state)
    card.engine.is_dead = True
    await card.replica.check_health()
    assert card.state == str(state)
