"""Turns against the real keeper, in virtual time."""

import asyncio
import math
import random
from collections.abc import Coroutine
from contextlib import suppress
from contextvars import copy_context
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from actors.keeper.card_keeper import CardKeeper
from actors.keeper.first_start import FIRST_TRIES
from actors.keeper.protocol import LEASE_S
from actors.keeper.replica_turns import REJOIN_S, REPORT_EVERY_S, TurnClient
from cluster.residency.messages import PollReply, Snapshot
from cluster.residency.policy import Policy
from cluster.residency.state import Member, Slot, State
from configs.errors import EngineUnavailable, UserError, WeightsError
from tests.unit.scripts import clock_ahead_s

pytestmark = pytest.mark.virtual_time

T = TypeVar("T")
STEP_S = 1.0
"""Seconds of each step of an engine."""
LETS_GO_S = 0.5
"""Seconds that a cancelled step needs until the engine has let go."""
POLICY = Policy(step_timeout_s=30, start_timeout_s=30, restart_timeout_s=5, retry_s=1)


def now() -> float:
    return asyncio.get_running_loop().time()


class Link:
    """The way to a keeper, whose clock is ahead of the replicas'.

    While `cut` is set, messages that are under way fail, and no others get through.
    """

    def __init__(self, keeper: CardKeeper, ahead_s: float = 0.0) -> None:
        self.keeper = keeper
        self.cut = asyncio.Event()
        self.messages = 0
        self.joins_at: list[float] = []
        self._keepers_side = copy_context()
        self._keepers_side.run(clock_ahead_s.set, ahead_s)

    async def join(self, member: str, claimant_id: str, found: Snapshot, replica: Any) -> str | None:
        self.joins_at.append(now())
        return await self._over(self.keeper.join(member, claimant_id, found, replica))

    async def report(self, ticket: str, number: int, found: Snapshot) -> bool:
        return await self._over(self.keeper.report(ticket, number, found))

    async def poll(self, ticket: str, after: int) -> PollReply:
        return await self._over(self.keeper.poll(ticket, after))

    async def _over(self, answer: Coroutine[Any, Any, T]) -> T:
        self.messages += 1
        answering = asyncio.create_task(answer, context=self._keepers_side)
        cutting = asyncio.create_task(self.cut.wait())
        try:
            await asyncio.wait([answering, cutting], return_when=asyncio.FIRST_COMPLETED)
            if cutting.done():
                raise ConnectionError("cut")
            return await answering
        finally:
            answering.cancel()
            cutting.cancel()


class Card:
    """Models a, b, ... in one slot, and what they did. Every step and call asserts what must not be."""

    def __init__(
        self,
        members: str = "ab",
        *,
        stops: str = "",
        concurrency: int = 2,
        keeper_ahead_s: float = 0.0,
    ) -> None:
        """`stops` names the members that are stopped between their turns; the others sleep."""
        planned = [
            Member(name, i, 1.0, 1.0, stops=name in stops, start_s=1.0, stop_s=1.0)
            for i, name in enumerate(members)
        ]
        self.slots = [Slot("s", tuple(planned))]
        self.log: list[str] = []
        self.killed: list[str] = []
        self.broken: set[str] = set()
        self.died_asleep: set[str] = set()
        """Members whose engines hold no memory while they are restarted."""
        self.errors: dict[str, Exception] = {}
        """What a broken step raises, if not RuntimeError."""
        self.link = Link(self.new_keeper(), keeper_ahead_s)
        self.turns = {
            name: TurnClient(name, Engine(self, name), self.link, concurrency=concurrency, replica=name)
            for name in members
        }

    def new_keeper(self) -> CardKeeper:
        async def alive(_replica: str) -> bool:
            return True

        async def kill(replica: str) -> None:
            self.killed.append(replica)

        return CardKeeper(self.slots, POLICY, alive, kill)

    async def up(self) -> "Card":
        for turns in self.turns.values():
            turns.start()
        for turns in self.turns.values():
            await turns.wait_until_up()
        await asyncio.sleep(60)
        self.log.clear()
        return self

    async def down(self) -> None:
        for turns in self.turns.values():
            await turns.stop()

    def check_health(self) -> None:
        failed = [n for n in self.died_asleep if self.turns[n].state is State.FAILED]
        busy = [name for name, turns in self.turns.items() if turns.in_flight]
        awake = [
            n
            for n, t in self.turns.items()
            if t.state not in (State.NOT_STARTED, State.STOPPED, State.ASLEEP)
        ]
        assert len(set(awake) - set(failed)) <= 1, f"awake together: {awake}"
        assert len(busy) <= 1, f"turns together: {busy}"
        assert all(self.turns[name].state is State.RESIDENT for name in busy), "serves asleep"

    async def call(self, name: str, seconds: float = 1.0, patience_s: float = math.inf) -> None:
        async with self.turns[name].turn(patience_s):
            self.check_health()
            self.log.append(f"{name} call")
            await asyncio.sleep(seconds)
            self.check_health()


class Engine:
    def __init__(self, card: Card, name: str) -> None:
        self._card = card
        self._name = name

    async def start(self) -> None:
        await self._step("start")

    async def stop(self) -> None:
        await self._step("stop")

    async def sleep(self) -> None:
        await self._step("sleep")

    async def wake(self) -> None:
        await self._step("wake")

    async def restart(self) -> None:
        await self._step("restart")

    async def _step(self, step: str) -> None:
        self._card.check_health()
        self._card.log.append(f"{self._name} {step}")
        hangs = f"{self._name} {step} hangs" in self._card.broken
        try:
            await asyncio.sleep(math.inf if hangs else STEP_S)
        except asyncio.CancelledError:
            await asyncio.sleep(LETS_GO_S)
            self._card.log.append(f"{self._name} {step} cancelled")
            raise
        if f"{self._name} {step}" in self._card.broken:
            raise self._card.errors.get(f"{self._name} {step}", RuntimeError(f"cannot {step}"))


TWO_CLOCKS = pytest.mark.parametrize("keeper_ahead_s", [0.0, 1000.0, -1000.0])


async def test_every_engine_is_started_once_and_the_first_of_the_recipe_is_left_awake() -> None:
    card = Card("abc")
    for turns in card.turns.values():
        turns.start()
    await asyncio.sleep(60)
    assert card.log == ["c start", "c sleep", "b start", "b sleep", "a start", "a sleep", "a wake"]
    await card.down()


async def test_a_replica_is_up_only_after_its_engine_has_slept_once() -> None:
    card = Card("abc")
    up: dict[str, list[str]] = {}

    async def wait(name: str) -> None:
        await card.turns[name].wait_until_up()
        up[name] = list(card.log)

    for turns in card.turns.values():
        turns.start()
    await asyncio.gather(*map(wait, "abc"))
    assert "c sleep" in up["c"]
    assert "b sleep" in up["b"]
    assert up["a"][-2:] == ["a sleep", "a wake"]
    await card.down()


async def test_a_replica_that_is_stopped_between_its_turns_is_started_once_before_it_is_up() -> None:
    card = Card("abc", stops="abc")
    for turns in card.turns.values():
        turns.start()
    await asyncio.gather(*(turns.wait_until_up() for turns in card.turns.values()))
    assert card.log == ["c start", "c stop", "b start", "b stop", "a start"]
    states = {name: turns.state for name, turns in card.turns.items()}
    assert states == {"a": State.RESIDENT, "b": State.STOPPED, "c": State.STOPPED}
    card.log.clear()
    await asyncio.gather(card.call("a"), card.call("c"))
    assert card.log == ["a call", "a stop", "c start", "c call"]
    await card.down()


@pytest.mark.parametrize("times", [1, 2, FIRST_TRIES - 1])
@pytest.mark.parametrize("step", ["a start", "a sleep"])
async def test_a_first_start_that_fails_is_tried_again_and_the_replica_lives(
    times: int, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    card = Card("ab")
    card.broken.add(step)
    card.errors[step] = RuntimeError("free memory is less than desired")
    for turns in card.turns.values():
        turns.start()
    waiting = asyncio.create_task(card.turns["a"].wait_until_up())
    while card.log.count("a restart") < times:
        await asyncio.sleep(0.1)
        assert not waiting.done()
    found = (await card.link.keeper.snapshots())["a"]
    assert (found.state, found.failure) == (State.FAILED, "free memory is less than desired")
    card.broken.clear()
    await waiting
    assert card.killed == []
    assert card.log.count("a restart") == times
    assert 'why="its engine failed: free memory is less than desired"' in caplog.text
    await card.call("a")
    await card.down()


async def test_a_first_start_that_fails_each_time_ends_with_its_cause_after_so_many_tries() -> None:
    card = Card("a")
    card.broken.add("a start")
    card.errors["a start"] = RuntimeError("free memory is less than desired")
    card.turns["a"].start()
    message = f"'a' did not start in {FIRST_TRIES} tries: free memory is less than desired"
    with pytest.raises(EngineUnavailable, match=message):
        await card.turns["a"].wait_until_up()
    starts = card.log.count("a start")
    assert starts == FIRST_TRIES
    assert now() > sum(POLICY.retry_wait_s(n) for n in range(FIRST_TRIES - 1))
    await card.down()


def caused_by(cause: Exception) -> EngineUnavailable:
    error = EngineUnavailable("vLLM cannot run a")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        WeightsError("no file has these weights"),
        UserError("such a setting does not exist"),
        ValueError("max_model_len is too large"),
        ModuleNotFoundError("No module named 'vllm'"),
        caused_by(ValueError("max_model_len is too large")),
    ],
)
async def test_a_first_start_that_can_never_succeed_fails_at_once(error: Exception) -> None:
    card = Card("ab")
    card.broken.add("a start")
    card.errors["a start"] = error
    for turns in card.turns.values():
        turns.start()
    with pytest.raises(EngineUnavailable, match=f"'a' cannot start: {error}"):
        await card.turns["a"].wait_until_up()
    assert card.log.count("a start") == 1
    await card.down()


async def test_a_failure_later_is_no_failure_of_the_first_start() -> None:
    card = await Card("a").up()
    for _ in range(FIRST_TRIES + 1):
        card.turns["a"].mark_engine_failed("it has died")
        await card.call("a")
    await card.turns["a"].wait_until_up()
    await card.down()


async def test_an_engine_that_died_asleep_is_started_again_while_nobody_asks() -> None:
    card = await Card("ab").up()
    serving = asyncio.create_task(card.call("a", seconds=30))
    await asyncio.sleep(1)
    card.died_asleep.add("b")
    card.turns["b"].mark_engine_failed("it has died")
    await serving
    assert card.log == ["a call", "b restart"], "the member that works keeps its turn"
    await asyncio.sleep(60)
    again = ["a sleep", "b start", "b sleep", "a wake"]
    assert card.log == ["a call", "b restart", *again]
    assert (await card.link.keeper.snapshots())["b"].failure == "it has died"
    card.log.clear()
    await card.call("b")
    assert card.log == ["a sleep", "b wake", "b call"], "no start in a user's turn"
    await card.down()


async def test_calls_of_the_other_member_wait_for_a_swap_and_then_run() -> None:
    card = await Card().up()
    await asyncio.gather(card.call("a"), card.call("b"))
    assert card.log == ["a call", "a sleep", "b wake", "b call"]
    await card.down()


async def test_a_call_whose_turn_is_open_costs_no_message_before_it_starts() -> None:
    card = await Card().up()
    before, now = card.link.messages, asyncio.get_running_loop().time()
    async with card.turns["a"].turn():
        assert (card.link.messages, asyncio.get_running_loop().time()) == (before, now)
    await card.down()


async def test_what_the_keeper_acts_on_is_reported_at_once_and_mere_counts_within_a_second() -> None:
    card = await Card().up()

    async def known(name: str) -> tuple[int, int]:
        await asyncio.sleep(0.01)
        calls = (await card.link.keeper.snapshots())[name].calls
        return calls.waiting, calls.in_flight

    serving = asyncio.create_task(card.call("a", seconds=0.1))
    assert await known("a") == (0, 1)
    await serving
    assert await known("a") == (0, 0)
    first = asyncio.create_task(card.call("b"))
    assert await known("b") == (1, 0)
    first.cancel()
    assert await known("b") == (0, 0)
    waiting = [asyncio.create_task(card.call("b")) for _ in range(2)]
    assert await known("b") == (2, 0)
    waiting.append(asyncio.create_task(card.call("b")))
    assert await known("b") == (2, 0)
    await asyncio.sleep(REPORT_EVERY_S)
    assert await known("b") == (3, 0)
    await asyncio.gather(*waiting)
    await card.down()


async def test_no_more_calls_run_at_a_time_than_the_engine_takes() -> None:
    card = await Card(concurrency=2).up()
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(card.call("a", seconds=10) for _ in range(6)))
    assert asyncio.get_running_loop().time() - began == pytest.approx(30)
    await card.down()


@TWO_CLOCKS
async def test_calls_before_the_cutoff_are_still_served_and_later_ones_wait_for_the_next_turn(
    keeper_ahead_s: float,
) -> None:
    card = await Card(concurrency=1, keeper_ahead_s=keeper_ahead_s).up()
    early = [asyncio.create_task(card.call("a", seconds=3)) for _ in range(3)]
    other = asyncio.create_task(card.call("b"))
    await asyncio.sleep(5)  # the cutoff comes after 4 s, two swaps after the first call
    late = asyncio.create_task(card.call("a"))
    await asyncio.gather(*early, other, late)
    swap = ["a sleep", "b wake", "b call", "b sleep", "a wake"]
    assert card.log == ["a call"] * 3 + swap + ["a call"]
    await card.down()


@TWO_CLOCKS
async def test_a_call_out_of_patience_ends_the_turn_after_the_calls_in_flight(
    keeper_ahead_s: float,
) -> None:
    card = await Card(concurrency=1, keeper_ahead_s=keeper_ahead_s).up()
    calls = [asyncio.create_task(card.call("a", seconds=4)) for _ in range(5)]
    calls.append(asyncio.create_task(card.call("b", patience_s=5)))
    await asyncio.gather(*calls)
    assert card.log[:5] == ["a call", "a call", "a sleep", "b wake", "b call"]
    assert card.log.count("a call") == 5
    await card.down()


async def test_a_cancelled_call_no_longer_asks_for_a_turn() -> None:
    card = await Card().up()
    serving = asyncio.create_task(card.call("a", seconds=10))
    waiting = asyncio.create_task(card.call("b"))
    await asyncio.sleep(5)
    waiting.cancel()
    await serving
    await card.call("a")
    await asyncio.sleep(60)
    assert card.log == ["a call", "a call"]
    await card.down()


async def test_a_call_cancelled_in_the_moment_of_its_start_leaves_nothing_behind() -> None:
    card = await Card(concurrency=1).up()
    async with card.turns["a"].turn():
        waiting = asyncio.create_task(card.call("a"))
        await asyncio.sleep(0)
    assert card.turns["a"].in_flight == 1
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    assert (card.turns["a"].in_flight, card.turns["a"].waiting) == (0, 0)
    await card.down()


async def test_without_the_keeper_no_call_is_started_until_it_has_rejoined() -> None:
    card = await Card().up()
    serving = asyncio.create_task(card.call("a", seconds=3 * LEASE_S))
    await asyncio.sleep(0.1)
    card.link.cut.set()
    await asyncio.sleep(0.1)
    late = asyncio.create_task(card.call("a"))
    await serving
    assert card.log == ["a call"]
    card.link.keeper = card.new_keeper()
    card.link.cut.clear()
    await late
    assert card.log == ["a call", "a call"]
    await card.down()


async def test_a_keeper_that_only_falls_silent_ends_the_lease_too() -> None:
    class Silent(CardKeeper):
        async def poll(self, ticket: str, after: int) -> PollReply:
            return await (asyncio.Future() if silent.is_set() else super().poll(ticket, after))

    silent = asyncio.Event()

    card = Card()

    async def alive(_replica: str) -> bool:
        return True

    async def kill(_replica: str) -> None: ...

    card.link.keeper = Silent(card.slots, POLICY, alive, kill)
    await card.up()
    silent.set()
    await asyncio.sleep(LEASE_S + 1)
    assert not card.turns["a"].has_room
    await card.down()


async def test_a_lost_keeper_is_tried_again_at_once_however_long_it_was_away_before() -> None:
    first_wait_s, longest_wait_s = REJOIN_S
    card = Card("a")
    card.link.cut.set()
    card.turns["a"].start()
    await asyncio.sleep(100)
    assert card.link.joins_at[-1] - card.link.joins_at[-2] == pytest.approx(longest_wait_s)
    card.link.cut.clear()
    await card.turns["a"].wait_until_up()
    card.link.cut.set()
    lost_at = now()
    await asyncio.sleep(first_wait_s / 2)
    card.link.cut.clear()
    await asyncio.sleep(first_wait_s)
    assert card.link.joins_at[-1] - lost_at == pytest.approx(first_wait_s)
    await card.down()


async def test_stopping_waits_until_a_step_under_way_has_let_go() -> None:
    card = await Card().up()
    waiting = asyncio.create_task(card.call("b"))
    await asyncio.sleep(STEP_S / 2)
    assert card.log == ["a sleep"]
    await card.turns["a"].stop()
    assert card.log == ["a sleep", "a sleep cancelled"]
    waiting.cancel()
    await card.down()


async def test_a_member_that_has_its_slot_to_itself_needs_no_lease() -> None:
    card = await Card("a").up()
    card.link.cut.set()
    await asyncio.sleep(3 * LEASE_S)
    await card.call("a")
    assert card.log == ["a call"]
    await card.down()


@pytest.mark.parametrize("step", ["a sleep", "b wake", "b wake hangs"])
async def test_a_failed_step_restarts_that_engine_and_the_other_goes_on_answering(step: str) -> None:
    card = await Card().up()
    card.broken.add(step)
    first = asyncio.create_task(card.call("b"))
    await asyncio.sleep(40)
    card.broken.clear()
    if step.startswith("b"):
        with pytest.raises(EngineUnavailable):
            await first
    await asyncio.gather(card.call("a"), card.call("b"))
    victim = step[0]
    assert (f"{step.removesuffix(' hangs')} cancelled" in card.log) == step.endswith("hangs")
    assert card.log.index(f"{victim} restart") < card.log.index(f"{victim} start")
    assert card.killed == []
    await card.down()


async def test_a_replica_that_does_not_restart_is_killed() -> None:
    card = await Card().up()
    card.broken |= {"a sleep", "a restart hangs"}
    waiting = asyncio.create_task(card.call("b"))
    await asyncio.sleep(3 + 1.5 * POLICY.restart_timeout_s)
    assert card.killed == ["a"]
    waiting.cancel()
    await card.down()


async def test_an_engine_found_dead_outside_any_step_is_restarted() -> None:
    card = await Card("a").up()
    card.turns["a"].mark_engine_failed()
    await card.call("a")
    assert card.log == ["a restart", "a start", "a call"]
    await card.down()


async def test_a_model_on_no_card_starts_at_once_and_is_always_open() -> None:
    card = Card("a")
    card.turns["a"] = TurnClient("a", Engine(card, "a"), None, concurrency=1)
    card.turns["a"].start()
    await card.call("a")
    assert card.log == ["a start", "a call"]
    await card.down()


async def test_a_member_that_the_keeper_does_not_expect_fails_instead_of_waiting_for_ever() -> None:
    card = Card("a")
    stranger = TurnClient("z", Engine(card, "z"), card.link, concurrency=1)
    stranger.start()
    with pytest.raises(EngineUnavailable, match="'z'"):
        await stranger.wait_until_up()


STEPS = ("sleep", "stop", "stop hangs", "wake", "wake hangs", "start", "start hangs")


@settings(
    max_examples=30,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(seed=st.integers(0, 2**32))
async def test_whatever_breaks_and_in_whatever_order_all_is_served_in_the_end(seed: int) -> None:
    rng = random.Random(seed)

    async def trouble(card: Card) -> None:
        for _ in range(rng.randint(0, 6)):
            await asyncio.sleep(rng.uniform(0, 20))
            member, step = rng.choice("abc"), rng.choice(STEPS)
            card.broken = {f"{member} {step}"}
            if rng.random() < 0.4:
                card.link.cut.set()
                await asyncio.sleep(rng.choice([0.01, 1, 10]))
                card.link.keeper = rng.choice([card.link.keeper, card.new_keeper()])
                card.link.cut.clear()
        card.broken = set()

    async def caller(card: Card) -> None:
        await asyncio.sleep(rng.uniform(0, 100))
        call = asyncio.create_task(
            card.call(rng.choice("abc"), rng.uniform(0, 3), rng.choice([5, math.inf]))
        )
        if rng.random() < 0.3:
            await asyncio.sleep(rng.uniform(0, 5))
            call.cancel()
        await asyncio.wait([call])
        if not call.cancelled() and (error := call.exception()) is not None:
            assert isinstance(error, EngineUnavailable), error

    card = await Card("abc", stops=rng.choice(["", "", "c", "bc", "abc"])).up()
    await asyncio.gather(trouble(card), *(caller(card) for _ in range(20)))
    await asyncio.gather(*(card.call(name) for name in "abc"))
    card.check_health()
    await card.down()
