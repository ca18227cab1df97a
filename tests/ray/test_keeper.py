"""The keeper and its replicas as real Ray actors: each dies in turn, and the others go on.

Replicas note every step and call at a recorder, before it begins and after it has ended. The recorder
keeps what must never be: two members awake in the slot, calls of two members, a call without an engine.
"""

import asyncio
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.exceptions import ActorUnavailableError, RayActorError

from actors.keeper.ray_keeper import RayKeeper, RemoteKeeper
from actors.keeper.replica_turns import TurnClient
from cluster.residency.messages import Verb
from cluster.residency.policy import Policy
from cluster.residency.state import Member, Slot
from configs.errors import EngineUnavailable

MEMBERS = ("a", "b", "c")
WAIT_S = 30


class Recorder:
    """The state of every replica, what happened, and what must not have. A latch holds up a step."""

    def __init__(self) -> None:
        self._engines: dict[str, str] = {}
        self._calls: dict[str, int] = {}
        self._events: list[str] = []
        self._forbidden: list[str] = []
        self._latches: dict[str, asyncio.Event] = {}
        self._failing: set[str] = set()
        self._news = asyncio.Condition()

    async def note(self, name: str, event: str, engine: str | None, calls: int) -> None:
        """Note an event of a replica.

        Args:
            engine: the state that its engine enters; None if the engine stays as it is.
            calls: how many calls more it serves.
        """
        if engine is not None:
            self._engines[name] = engine
        self._calls[name] = self._calls.get(name, 0) + calls
        awake = sorted(n for n, state in self._engines.items() if state not in ("gone", "asleep"))
        busy = sorted(n for n, count in self._calls.items() if count)
        if len(awake) > 1:
            self._forbidden.append(f"{name} {event}: awake together: {awake}")
        if len(busy) > 1 or any(self._engines[n] != "resident" for n in busy):
            self._forbidden.append(f"{name} {event}: {busy} serve, engines are {self._engines}")
        self._events.append(f"{name} {event}")
        async with self._news:
            self._news.notify_all()

    async def killed(self, name: str) -> None:
        """The test kills the process of `name` now."""
        self._engines[name] = "gone"
        self._calls[name] = 0

    async def hold(self, event: str) -> int:
        """Hold every replica that comes to `event`. Returns how many events there have been."""
        self._latches[event] = asyncio.Event()
        return len(self._events)

    async def release(self, event: str, fail: bool) -> None:
        if fail:
            self._failing.add(event)
        self._latches.pop(event).set()

    async def pass_latch(self, event: str) -> None:
        if (latch := self._latches.get(event)) is not None:
            await latch.wait()
        if event in self._failing:
            self._failing.remove(event)
            raise RuntimeError(f"{event} is to fail in this test")

    async def wait_for(self, event: str, since: int) -> None:
        """Return once the event has happened after the first `since` events."""
        async with self._news:
            await self._news.wait_for(lambda: event in self._events[since:])

    async def forbidden(self) -> list[str]:
        return self._forbidden


class FakeEngine:
    def __init__(self, name: str, recorder: Any) -> None:
        self.name = name
        self.recorder = recorder

    async def start(self) -> None:
        await self._step("start", "waking", "resident")

    async def stop(self) -> None:
        await self._step("stop", "stopping", "gone")

    async def sleep(self) -> None:
        await self._step("sleep", "falling asleep", "asleep")

    async def wake(self) -> None:
        await self._step("wake", "waking", "resident")

    async def restart(self) -> None:
        await self.recorder.note.remote(self.name, "restart", "gone", 0)
        os._exit(1)

    async def _step(self, step: str, during: str, after: str) -> None:
        await self.recorder.note.remote(self.name, step, during, 0)
        await self.recorder.pass_latch.remote(f"{self.name} {step}")
        await self.recorder.note.remote(self.name, f"{step} done", after, 0)


class Replica:
    """A model's replica: restarted by Ray when it dies, as Serve would."""

    async def __init__(self, name: str, keeper: Any, recorder: Any) -> None:  # type: ignore[misc]
        self._name = name
        self._recorder = recorder
        me = ray.get_runtime_context().current_actor
        engine = FakeEngine(name, recorder)
        self._turns = TurnClient(name, engine, RemoteKeeper(lambda: keeper), concurrency=2, replica=me)
        self._turns.start()

    async def call(self, tag: str = "call") -> str:
        try:
            async with self._turns.turn():
                await self._answer(tag)
        except asyncio.CancelledError:
            await self._recorder.note.remote(self._name, f"{tag} withdrawn", None, 0)
            raise
        return self._name

    async def _answer(self, tag: str) -> None:
        await self._recorder.note.remote(self._name, tag, None, 1)
        try:
            await self._recorder.pass_latch.remote(f"{self._name} {tag}")
        finally:
            await self._recorder.note.remote(self._name, f"{tag} done", None, -1)


class Cluster:
    """One card with one slot for a, b and c; a is awake at first.

    Args:
        stops: names of the members that are stopped between their turns; the others sleep.
    """

    def __init__(self, stops: str = "") -> None:
        actor: Any = ray.remote
        self.recorder = actor(Recorder).options(num_cpus=0, max_concurrency=1000).remote()
        members = [
            Member(name, i, 0.05, 0.05, stops=name in stops, start_s=0.05, stop_s=0.05)
            for i, name in enumerate(MEMBERS)
        ]
        slot = Slot("s", tuple(members))
        self.keeper = (
            actor(RayKeeper)
            .options(num_cpus=0, max_restarts=-1, max_concurrency=1000)
            .remote([slot], Policy(restart_timeout_s=2, retry_s=0.1))
        )
        replica = actor(Replica).options(num_cpus=0, max_restarts=-1, max_concurrency=1000)
        self.replicas = {name: replica.remote(name, self.keeper, self.recorder) for name in MEMBERS}
        self.since = 0
        for name in MEMBERS:
            self.wait_for(f"{name} start done")
        self.call("a")

    def get(self, *refs: Any) -> Any:
        return ray.get(list(refs), timeout=WAIT_S)

    def call(self, *names: str) -> None:
        """Each of these answers. A call is made again if it came to a replica that Ray was just about
        to start anew."""
        calls = {name: self.replicas[name].call.remote() for name in names}
        for name, call in calls.items():
            try:
                assert self.get(call) == [name]
            except ActorUnavailableError:
                self.call(name)

    def wait_for(self, event: str) -> None:
        """Return once the event has happened after the last `hold`."""
        self.get(self.recorder.wait_for.remote(event, self.since))

    def hold(self, event: str) -> None:
        (self.since,) = self.get(self.recorder.hold.remote(event))

    def release(self, event: str, *, fail: bool = False) -> None:
        self.get(self.recorder.release.remote(event, fail))

    def kill(self, name: str) -> None:
        self.get(self.recorder.killed.remote(name))
        ray.kill(self.replicas[name], no_restart=False)

    def close(self) -> None:
        for actor in [*self.replicas.values(), self.keeper, self.recorder]:
            ray.kill(actor)


@pytest.fixture(scope="module")
def _ray(http_port: int) -> None:  # noqa: ARG001  # it starts Ray
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]


@pytest.fixture
def card(_ray: None, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    cluster = Cluster(stops=getattr(request, "param", ""))
    yield cluster
    try:
        cluster.call("a", "b", "c")  # the lock is free, every member answers again
        assert cluster.get(cluster.recorder.forbidden.remote()) == [[]]
    finally:
        cluster.close()


def test_killed_asleep_the_others_do_not_even_notice(card: Cluster) -> None:
    card.hold("a call")
    serving = card.replicas["a"].call.remote()
    card.wait_for("a call")
    card.kill("b")
    card.release("a call")
    assert card.get(serving) == ["a"]
    card.call("c", "a")
    card.wait_for("b start done")


def test_killed_waking_the_others_go_on_and_it_comes_back(card: Cluster) -> None:
    card.hold("b wake")
    lost = card.replicas["b"].call.remote()
    card.wait_for("b wake")
    other = card.replicas["c"].call.remote()
    card.kill("b")
    with pytest.raises(RayActorError):
        card.get(lost)
    card.release("b wake")  # the new engine of b sleeps once, so it has to wake too
    assert card.get(other) == ["c"]


def test_killed_awake_the_slot_passes_on(card: Cluster) -> None:
    card.kill("a")
    card.call("b", "c")


def test_killed_while_serving_the_caller_gets_an_error_and_the_slot_passes_on(card: Cluster) -> None:
    card.hold("a call")
    lost = card.replicas["a"].call.remote()
    card.wait_for("a call")
    other = card.replicas["b"].call.remote()
    card.kill("a")
    with pytest.raises(RayActorError):
        card.get(lost)
    card.release("a call")  # after the process is dead, or it could still note the call
    assert card.get(other) == ["b"]


def test_killed_falling_asleep_the_next_one_is_woken(card: Cluster) -> None:
    card.hold("a sleep")
    other = card.replicas["b"].call.remote()
    card.wait_for("a sleep")
    card.kill("a")
    card.release("a sleep")
    assert card.get(other) == ["b"]


STOPPERS = pytest.mark.parametrize("card", ["abc"], indirect=True)
"""All members are stopped between their turns."""
MIXED = pytest.mark.parametrize("card", ["ab"], indirect=True)
"""a and b are stopped between their turns, c sleeps."""


@MIXED
def test_killed_stopping_the_next_one_starts(card: Cluster) -> None:
    card.hold("a stop")
    other = card.replicas["b"].call.remote()
    card.wait_for("a stop")
    card.kill("a")
    card.release("a stop")
    assert card.get(other) == ["b"]


@STOPPERS
def test_killed_starting_from_disk_the_others_go_on_and_it_comes_back(card: Cluster) -> None:
    card.hold("b start")
    lost = card.replicas["b"].call.remote()
    card.wait_for("b start")
    other = card.replicas["c"].call.remote()
    card.kill("b")
    with pytest.raises(RayActorError):
        card.get(lost)
    card.release("b start")  # after the process is dead, or it could still note that it has started
    assert card.get(other) == ["c"]


@STOPPERS
def test_killed_stopped_a_call_in_work_is_not_touched(card: Cluster) -> None:
    card.hold("a call")
    serving = card.replicas["a"].call.remote()
    card.wait_for("a call")
    card.kill("b")
    card.release("a call")
    assert card.get(serving) == ["a"]
    card.call("c", "b")


@MIXED
def test_killed_while_it_answers_the_caller_gets_an_error_and_a_stopped_one_starts(
    card: Cluster,
) -> None:
    card.hold("a call")
    lost = card.replicas["a"].call.remote()
    card.wait_for("a call")
    other = card.replicas["b"].call.remote()
    card.kill("a")
    with pytest.raises(RayActorError):
        card.get(lost)
    card.release("a call")
    assert card.get(other) == ["b"]


@STOPPERS
def test_a_keeper_killed_in_the_middle_of_a_start_learns_how_it_ended(card: Cluster) -> None:
    card.hold("b start")
    call = card.replicas["b"].call.remote()
    card.wait_for("b start")
    ray.kill(card.keeper, no_restart=False)
    other = card.replicas["c"].call.remote()
    card.release("b start")
    assert card.get(call, other) == ["b", "c"]


def test_a_keeper_killed_in_a_turn_starts_nothing_until_all_have_rejoined(card: Cluster) -> None:
    card.hold("a long")
    serving = card.replicas["a"].call.remote("long")
    card.wait_for("a long")
    other = card.replicas["b"].call.remote()
    ray.kill(card.keeper, no_restart=False)
    card.release("a long")
    assert card.get(serving, other) == ["a", "b"]


def test_a_keeper_killed_in_the_middle_of_a_wake_learns_how_it_ended(card: Cluster) -> None:
    card.hold("b wake")
    call = card.replicas["b"].call.remote()
    card.wait_for("b wake")
    ray.kill(card.keeper, no_restart=False)
    other = card.replicas["c"].call.remote()
    card.release("b wake")
    assert card.get(call, other) == ["b", "c"]


def test_a_client_that_gives_up_while_it_waits_costs_no_swap(card: Cluster) -> None:
    card.hold("a call")
    serving = card.replicas["a"].call.remote()
    card.wait_for("a call")
    before = card.get(card.keeper.order_counts.remote())[0]
    waiting = card.replicas["b"].call.remote()
    while card.get(card.keeper.snapshots.remote())[0]["b"].calls.waiting == 0:
        pass  # until the keeper knows that b wants a turn
    # By default Ray cancels also what the call asks of others, and so the note that it was withdrawn.
    ray.cancel(waiting, recursive=False)
    card.wait_for("b call withdrawn")
    card.release("a call")
    assert card.get(serving) == ["a"]
    card.call("a")
    after = card.get(card.keeper.order_counts.remote())[0]
    assert after.get(("b", Verb.WAKE), 0) == before.get(("b", Verb.WAKE), 0)


def test_a_failed_wake_ends_the_process_and_a_new_one_answers(card: Cluster) -> None:
    card.hold("b wake")
    lost = card.replicas["b"].call.remote()
    card.wait_for("b wake")
    card.release("b wake", fail=True)
    with pytest.raises((EngineUnavailable, RayActorError)):
        card.get(lost)
    card.call("a", "c")
    card.wait_for("b restart")
    card.wait_for("b start done")
    card.call("a", "c", "b")
