"""Single decisions about engines that are started, stopped, or have failed while they were away."""

import math
from collections.abc import Sequence

import pytest

from cluster.residency.messages import Action, CallAt, MemberAction, Snapshot, Verb
from cluster.residency.policy import GPU_POLICY, Policy
from cluster.residency.scheduler import ResidencyScheduler
from cluster.residency.state import Member, QueueCounts, Slot, State, TurnState
from cluster.residency.steps import AFTER, DURING

A, B, C = (Member(name, i, wake_s=2.0, sleep_s=1.0, start_s=30.0) for i, name in enumerate("abc"))
STOPS_A, STOPS_B, STOPS_C = (
    Member(name, i, stops=True, start_s=30.0, stop_s=5.0) for i, name in enumerate("abc")
)
AWAKE = Snapshot(State.RESIDENT, has_slept=True)
ASLEEP, STOPPED, NEW, FAILED = (
    Snapshot(s) for s in (State.ASLEEP, State.STOPPED, State.NOT_STARTED, State.FAILED)
)
WAITS = QueueCounts(waiting=1, first_arrival_at=100.0, first_due_at=130.0)
WORKS = QueueCounts(in_flight=1)


def card(*members: Member, policy: Policy | None = None, **found: Snapshot) -> ResidencyScheduler:
    """A card with one slot, whose members have all joined at 0."""
    scheduler = ResidencyScheduler([Slot("s", members)], policy)
    for name, snapshot in found.items():
        scheduler.on_join(0.0, name, snapshot)
    return scheduler


def verbs(actions: Sequence[Action]) -> list[tuple[Verb, str]]:
    return [(a.verb, a.member) for a in actions if isinstance(a, MemberAction)]


class Replicas:
    """Replicas that carry out each order at once and report it. `log` has the orders."""

    def __init__(self, scheduler: ResidencyScheduler, *names: str) -> None:
        self.scheduler = scheduler
        self.now = 0.0
        self.log: list[str] = []
        self.up_after: dict[str, str] = {}
        """For each member, the order after which its replica counted as up."""
        actions: list[Action] = []
        for name in names:
            actions += scheduler.on_join(0.0, name, NEW)
        self.names = names
        self.carry_out(actions)

    def carry_out(self, actions: Sequence[Action]) -> None:
        left = list(actions)
        while left:
            action = left.pop(0)
            if not isinstance(action, MemberAction):
                continue
            self.log.append(f"{action.member} {action.verb}")
            if action.verb in AFTER:
                self.now += 1
                state = AFTER[action.verb]
                left += self.scheduler.on_report(self.now, action.member, Snapshot(state, took_s=1.0))
            for name in self.names:
                if self.scheduler.is_up(name):
                    self.up_after.setdefault(name, self.log[-1])


def test_at_deployment_every_engine_sleeps_once_and_the_first_of_the_recipe_is_woken_again() -> None:
    replicas = Replicas(card(A, B, C), "a", "b", "c")
    slept = ["c start", "c sleep", "b start", "b sleep", "a start", "a sleep"]
    assert replicas.log == [*slept, "a wake", "a open"]
    # Each replica takes calls only after that.
    assert replicas.up_after == {"c": "c sleep", "b": "b sleep", "a": "a wake"}


def test_at_deployment_an_engine_that_is_to_be_stopped_is_started_once_and_stopped() -> None:
    replicas = Replicas(card(A, STOPS_B, STOPS_C), "a", "b", "c")
    stopped = ["c start", "c stop", "b start", "b stop"]
    assert replicas.log == [*stopped, "a start", "a sleep", "a wake", "a open"]
    assert replicas.up_after == {"c": "c stop", "b": "b stop", "a": "a wake"}


def test_at_deployment_the_last_engine_to_start_is_not_stopped_in_vain() -> None:
    replicas = Replicas(card(STOPS_A, STOPS_B), "a", "b")
    assert replicas.log == ["b start", "b stop", "a start", "a open"]


def test_an_engine_with_a_slot_to_itself_does_not_sleep() -> None:
    replicas = Replicas(card(A), "a")
    assert replicas.log == ["a start", "a open"]
    assert replicas.up_after == {"a": "a start"}


def test_a_call_that_waits_goes_before_a_first_sleep() -> None:
    scheduler = card(A, B, a=AWAKE, b=STOPPED)
    scheduler.on_report(1.0, "a", FAILED)
    scheduler.on_queue(100.0, "b", WAITS)
    scheduler.on_report(100.0, "a", STOPPED)
    actions = scheduler.on_report(130.0, "b", Snapshot(State.RESIDENT, calls=WAITS))
    assert verbs(actions) == [(Verb.OPEN, "b")]


def test_a_stopped_member_wants_no_turn_until_a_call_waits() -> None:
    scheduler = card(STOPS_A, STOPS_B, a=AWAKE, b=STOPPED)
    assert scheduler.tick(1000.0) == []
    assert verbs(scheduler.on_queue(1000.0, "b", WAITS)) == [(Verb.CLOSE, "a")]
    assert verbs(scheduler.on_report(1004.0, "a", AWAKE)) == [(Verb.STOP, "a")]
    stopped = Snapshot(State.STOPPED, took_s=4.0)
    assert verbs(scheduler.on_report(1008.0, "a", stopped)) == [(Verb.START, "b")]
    ready = Snapshot(State.RESIDENT, calls=WAITS, took_s=20.0)
    assert verbs(scheduler.on_report(1028.0, "b", ready)) == [(Verb.OPEN, "b")]


def test_a_new_replica_wants_a_turn_without_a_call() -> None:
    scheduler = card(STOPS_A, STOPS_B, a=AWAKE, b=STOPPED)
    scheduler.on_leave(10.0, "b")
    joined = scheduler.on_join(12.0, "b", NEW)
    assert isinstance(joined[-1], CallAt)
    assert (Verb.CLOSE, "a") in verbs(scheduler.tick(joined[-1].at))


def test_a_turn_lasts_as_many_seconds_as_a_stop_and_a_start_are_worth() -> None:
    scheduler = card(STOPS_A, STOPS_B, a=AWAKE, b=STOPPED)
    scheduler.on_queue(100.0, "a", WORKS)
    patient = QueueCounts(1, first_arrival_at=100.0)
    assert scheduler.on_queue(100.0, "b", patient) == [CallAt(100.0 + 2 * (5.0 + 30.0))]
    scheduler.tick(170.0)
    scheduler.on_report(171.0, "a", AWAKE)
    scheduler.on_report(172.0, "a", Snapshot(State.STOPPED, took_s=1.0))
    scheduler.on_report(182.0, "b", Snapshot(State.RESIDENT, calls=patient, took_s=10.0))
    scheduler.on_report(190.0, "b", Snapshot(State.RESIDENT, TurnState.OPEN))
    # Measured: a stop of `b` is still predicted to take 5 s, a start of `a` 30 s.
    call = QueueCounts(1, first_arrival_at=200.0)
    assert scheduler.on_queue(200.0, "a", call) == [CallAt(200.0 + 0.1 * (5.0 + 30.0))]
    scheduler.tick(203.5)
    scheduler.on_report(204.0, "b", AWAKE)
    scheduler.on_report(206.0, "b", Snapshot(State.STOPPED, took_s=2.0))
    scheduler.on_report(226.0, "a", Snapshot(State.RESIDENT, took_s=20.0))
    call = QueueCounts(1, first_arrival_at=300.0)
    assert scheduler.on_queue(300.0, "b", call) == [CallAt(300.0 + 0.1 * (1.0 + 10.0))]


def test_a_sleeper_that_has_lost_its_engine_is_counted_with_the_seconds_of_a_start() -> None:
    scheduler = card(A, B, a=AWAKE, b=ASLEEP)
    scheduler.on_report(50.0, "b", FAILED)
    scheduler.on_report(50.0, "b", STOPPED)
    scheduler.on_queue(100.0, "a", WORKS)
    call = QueueCounts(1, first_arrival_at=100.0)
    assert scheduler.on_queue(100.0, "b", call) == [CallAt(100.0 + 2 * (1.0 + 30.0))]
    scheduler.tick(162.0)
    scheduler.on_report(163.0, "a", AWAKE)
    scheduler.on_report(164.0, "a", ASLEEP)
    scheduler.on_report(200.0, "b", Snapshot(State.RESIDENT, calls=call, took_s=36.0))
    scheduler.on_report(210.0, "b", Snapshot(State.RESIDENT, TurnState.OPEN))
    # It sleeps again when it leaves. Its long start does not count as a wake.
    scheduler.on_queue(300.0, "a", QueueCounts(1, first_arrival_at=300.0))
    scheduler.tick(310.0)
    assert verbs(scheduler.on_report(310.0, "b", AWAKE)) == [(Verb.SLEEP, "b")]
    scheduler.on_report(311.0, "b", Snapshot(State.ASLEEP, took_s=1.0))
    scheduler.on_report(313.0, "a", AWAKE)
    call = QueueCounts(1, first_arrival_at=400.0)
    assert scheduler.on_queue(400.0, "b", call) == [CallAt(400.0 + 0.1 * (1.0 + B.wake_s))]


@pytest.mark.parametrize("away", [State.ASLEEP, State.STOPPED])
def test_an_engine_that_dies_away_takes_no_turn_from_a_member_that_works(away: State) -> None:
    scheduler = card(A, B, a=AWAKE, b=Snapshot(away))
    scheduler.on_queue(100.0, "a", WORKS)
    failed = scheduler.on_report(101.0, "b", Snapshot(State.FAILED, failure="it has died"))
    assert verbs(failed) == [(Verb.RESTART, "b")]
    assert scheduler.snapshots()["b"].failure == "it has died"
    actions = scheduler.on_report(102.0, "b", STOPPED)
    for now in (103.0, 110.0, 1000.0):
        assert verbs(actions) == []
        actions = scheduler.tick(now)
    assert scheduler.snapshots()["a"].turn is TurnState.OPEN


def test_an_engine_that_died_asleep_is_started_again_while_nobody_asks_and_sleeps_at_once() -> None:
    scheduler = card(A, B, a=AWAKE, b=ASLEEP)
    scheduler.on_queue(100.0, "a", WORKS)
    scheduler.on_report(101.0, "b", FAILED)
    scheduler.on_report(102.0, "b", STOPPED)
    assert scheduler.on_queue(110.0, "a", QueueCounts()) == [CallAt(120.0)]
    assert verbs(scheduler.tick(119.9)) == []
    assert verbs(scheduler.tick(120.0)) == [(Verb.CLOSE, "a")]
    assert verbs(scheduler.on_report(120.0, "a", AWAKE)) == [(Verb.SLEEP, "a")]
    assert verbs(scheduler.on_report(121.0, "a", ASLEEP)) == [(Verb.START, "b")]
    assert verbs(scheduler.on_report(151.0, "b", Snapshot(State.RESIDENT))) == [(Verb.SLEEP, "b")]
    assert verbs(scheduler.on_report(152.0, "b", ASLEEP)) == [(Verb.WAKE, "a")]
    assert verbs(scheduler.on_report(154.0, "a", AWAKE)) == [(Verb.OPEN, "a")]
    assert scheduler.tick(1000.0) == []


def test_a_call_that_comes_meanwhile_is_served_before_the_lost_engine_starts() -> None:
    scheduler = card(A, B, a=AWAKE, b=ASLEEP)
    scheduler.on_report(101.0, "b", FAILED)
    assert verbs(scheduler.on_report(102.0, "b", STOPPED)) == [(Verb.CLOSE, "a")]
    # A call arrived at `a` in the moment in which its turn closed.
    closed = Snapshot(State.RESIDENT, TurnState.CLOSED, WAITS, has_slept=True)
    assert verbs(scheduler.on_report(150.0, "a", closed)) == [(Verb.OPEN, "a")]


def test_an_engine_that_was_stopped_by_the_plan_is_not_started_while_nobody_asks() -> None:
    scheduler = card(STOPS_A, STOPS_B, a=AWAKE, b=STOPPED)
    scheduler.on_report(101.0, "b", FAILED)
    scheduler.on_report(102.0, "b", STOPPED)
    assert verbs(scheduler.tick(1000.0)) == []


def test_an_awake_engine_that_failed_is_started_again_at_once_if_all_others_are_away() -> None:
    scheduler = card(A, B, policy=Policy(retry_s=1), a=AWAKE, b=ASLEEP)
    scheduler.on_report(100.0, "a", FAILED)
    assert scheduler.on_report(100.5, "a", STOPPED) == [CallAt(101.0)]
    assert scheduler.tick(101.0) == [MemberAction(Verb.START, "a"), CallAt(101.0 + 3600)]


@pytest.mark.parametrize("members", [(A, B), (STOPS_A, STOPS_B)], ids=["asleep", "stopped"])
@pytest.mark.parametrize("state", [s for s in State if s not in (State.ABSENT, State.NOT_STARTED)])
def test_after_a_death_no_engine_of_a_gpu_begins_a_step_before_the_memory_is_free(
    members: tuple[Member, Member], state: State
) -> None:
    away = STOPPED if members[1].stops else ASLEEP
    scheduler = card(*members, policy=GPU_POLICY, a=Snapshot(state, has_slept=True), b=away)
    actions = scheduler.on_leave(99.9, "a")
    held = state is not State.STOPPED
    actions = scheduler.on_queue(100.0, "b", WAITS)
    step = (Verb.START if members[1].stops else Verb.WAKE, "b")
    assert (step in verbs(actions)) is not held
    if held:
        assert step not in verbs(scheduler.tick(101.8))
        assert step in verbs(scheduler.tick(99.9 + GPU_POLICY.settle_s))


def test_after_a_stop_the_next_engine_of_a_gpu_starts_when_the_memory_is_free() -> None:
    scheduler = card(STOPS_A, STOPS_B, policy=GPU_POLICY, a=AWAKE, b=STOPPED)
    scheduler.on_queue(100.0, "b", WAITS)
    scheduler.tick(110.0)
    scheduler.on_report(110.0, "a", AWAKE)
    assert verbs(scheduler.on_report(112.0, "a", STOPPED)) == []
    assert verbs(scheduler.tick(114.0)) == [(Verb.START, "b")]


def test_a_new_keeper_of_a_gpu_waits_before_it_starts_what_it_finds_not_started() -> None:
    scheduler = ResidencyScheduler([Slot("s", (A,))], GPU_POLICY)
    assert verbs(scheduler.on_join(0.0, "a", NEW)) == []
    assert verbs(scheduler.tick(2.0)) == [(Verb.START, "a")]


@pytest.mark.parametrize("verb", list(DURING))
def test_every_step_that_fails_or_hangs_is_followed_by_a_restart(verb: Verb) -> None:
    for hangs in (False, True):
        scheduler = card(A, B, policy=Policy(), a=Snapshot(DURING[verb]), b=ASLEEP)
        longest_s = 3600.0 if verb is Verb.START else 300.0
        at = longest_s if hangs else 5.0
        actions = scheduler.tick(at) if hangs else scheduler.on_report(at, "a", FAILED)
        assert (Verb.RESTART, "a") in verbs(actions)
        assert verbs(scheduler.tick(at + 10)) == [(Verb.KILL, "a")]


def test_an_engine_whose_first_start_failed_is_started_again_without_a_call() -> None:
    scheduler = card(A, policy=Policy(retry_s=1), a=NEW)
    scheduler.on_report(10.0, "a", FAILED)
    assert scheduler.on_report(10.5, "a", NEW) == [CallAt(11.0)]
    assert verbs(scheduler.tick(11.0)) == [(Verb.START, "a")]
    assert not scheduler.is_up("a")
    scheduler.on_report(20.0, "a", Snapshot(State.RESIDENT))
    assert scheduler.is_up("a")
    assert scheduler.snapshots()["a"].calls.first_due_at == math.inf
