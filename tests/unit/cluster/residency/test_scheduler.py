"""Single decisions of residency and its policy."""

import math
from collections.abc import Sequence

import pytest

from cluster.residency.messages import Action, CallAt, MemberAction, Snapshot, Verb
from cluster.residency.policy import Policy, TurnEnd, choose_next, turn_end
from cluster.residency.scheduler import ResidencyScheduler
from cluster.residency.state import Member, QueueCounts, Slot, State
from cluster.residency.view import MemberState, SlotState

POLICY = Policy(linger_share=0.1, min_turn_swaps=2, min_turn_s=1, settle_s=3, retry_s=1, max_retry_s=4)
A, B, C = (Member(name, i, wake_s=2.0, sleep_s=1.0) for i, name in enumerate("abc"))
AWAKE = Snapshot(State.RESIDENT, has_slept=True)
ASLEEP, STOPPED, NEW, FAILED = (
    Snapshot(s) for s in (State.ASLEEP, State.STOPPED, State.NOT_STARTED, State.FAILED)
)
WAITS = QueueCounts(waiting=1, first_arrival_at=100.0, first_due_at=130.0)


def asleep(
    member: Member, waiting: int = 0, *, due_at: float = math.inf, ended_at: float = 0.0
) -> MemberState:
    """A member that sleeps: how many calls wait, when the first is due, when its last turn ended."""
    calls = QueueCounts(waiting, first_arrival_at=0.0 if waiting else math.inf, first_due_at=due_at)
    return MemberState(member, state=State.ASLEEP, calls=calls, turn_ended_at=ended_at)


@pytest.mark.parametrize(
    ("members", "last", "chosen"),
    [
        ([asleep(A), asleep(B)], None, None),
        ([asleep(A, 1), asleep(B, 1)], None, "a"),  # the order of the recipe
        ([asleep(A, 1), asleep(B, 2)], None, "b"),  # the longest queue
        ([asleep(A, 9), asleep(B, 1)], "a", "b"),  # not twice in a row
        ([asleep(A, 9), asleep(B)], "a", "a"),  # unless nobody else waits
        ([asleep(A, 9), asleep(B, 1, due_at=5.0)], None, "b"),  # out of patience
        (
            [
                asleep(A, 1, due_at=4.0, ended_at=2.0),
                asleep(B, 1, due_at=5.0, ended_at=1.0),
            ],
            None,
            "b",
        ),
        ([asleep(A, 9), asleep(B, 1, due_at=99.0)], None, "a"),
    ],
)
def test_whose_turn_is_next(members: list[MemberState], last: str | None, chosen: str | None) -> None:
    before = next((s for s in members if s.member.name == last), None)
    wanting = [member for member in members if member.calls.waiting]
    found = choose_next(wanting, before, now=10.0, size=len(members))
    assert (found and found.member.name) == chosen


def test_a_member_passed_over_as_often_as_there_are_members_comes_next() -> None:
    long, short = asleep(A, 9), asleep(B, 1)
    short.times_passed_over = 2
    assert choose_next([long, short], None, now=10.0, size=2) is short


def test_a_member_counts_the_turns_that_others_got_while_it_wanted_one() -> None:
    a, b, c = members = [asleep(A, 1), asleep(B, 1), asleep(C)]
    slot = SlotState(Slot("s", (A, B, C)), members)
    slot.open_turn(a, 10.0)
    slot.open_turn(c, 20.0)
    assert (a.times_passed_over, b.times_passed_over, c.times_passed_over) == (1, 2, 0)
    slot.open_turn(b, 30.0)
    assert (a.times_passed_over, b.times_passed_over, c.times_passed_over) == (2, 0, 0)


@pytest.mark.parametrize(
    ("holder", "opened", "dry", "swap_s", "end"),
    [
        pytest.param(QueueCounts(in_flight=1), 0, 0, 3.0, TurnEnd(100.3, 130), id="an old turn"),
        pytest.param(QueueCounts(in_flight=1), 99, 0, 3.0, TurnEnd(105, 130), id="two swaps of work"),
        pytest.param(QueueCounts(), 99, 99, 3.0, TurnEnd(100.3, 130), id="dry already"),
        pytest.param(QueueCounts(), 99, 102, 3.0, TurnEnd(102.3, 130), id="just run dry"),
        pytest.param(QueueCounts(in_flight=1), 129.5, 0, 3.0, TurnEnd(135.5, 132.5), id="least turn"),
        pytest.param(QueueCounts(in_flight=1), 99, 0, 0.0, TurnEnd(100, 130), id="free swaps"),
        pytest.param(
            QueueCounts(in_flight=1), 129.5, 0, 0.0, TurnEnd(129.5, 130.5), id="least turn, free"
        ),
    ],
)
def test_when_a_turn_ends(
    holder: QueueCounts, opened: float, dry: float, swap_s: float, end: TurnEnd
) -> None:
    ours = MemberState(A, state=State.RESIDENT, calls=holder, turn_opened_at=opened, queue_empty_at=dry)
    rival = MemberState(B, state=State.ASLEEP, calls=WAITS)
    found = turn_end(ours, [rival], swap_s, POLICY)
    assert (found.cutoff_at, found.stop_at) == pytest.approx((end.cutoff_at, end.stop_at))


def test_times_of_a_queue_move_forward_with_the_clock_that_is_ahead() -> None:
    moved = Snapshot(State.ASLEEP, calls=WAITS, took_s=2.0).shift_times(5.0)
    calls = QueueCounts(waiting=1, first_arrival_at=105.0, first_due_at=135.0)
    assert moved == Snapshot(State.ASLEEP, calls=calls, took_s=2.0)


def card(*slots: Slot, policy: Policy = POLICY, **found: Snapshot) -> ResidencyScheduler:
    """A card whose members have all joined at 0, and whose idle turns are open."""
    residency = ResidencyScheduler(slots, policy)
    for name, snapshot in found.items():
        residency.on_join(0.0, name, snapshot)
    return residency


def ticks_until(
    wanted: MemberAction, residency: ResidencyScheduler, actions: Sequence[Action]
) -> tuple[float, Sequence[Action]]:
    """When `wanted` comes if nothing but the ticks happens that the actions ask for, and what comes."""
    now = math.nan
    while wanted not in actions:
        (now,) = (action.at for action in actions if isinstance(action, CallAt))
        actions = residency.tick(now)
    return now, actions


def test_a_turn_change_of_a_slot_that_keeps_all_loaded_orders_neither_sleep_nor_wake() -> None:
    residency = card(Slot("s", (A, B), keeps_loaded=True), a=AWAKE, b=AWAKE)
    orders = residency.on_queue(100.0, "b", WAITS)
    assert orders == [MemberAction(Verb.CLOSE, "a", cutoff=100.0), CallAt(130.0)]
    assert residency.on_report(100.0, "a", AWAKE) == [MemberAction(Verb.OPEN, "b")]


def test_a_turn_that_idled_counts_from_the_first_call_to_its_slot() -> None:
    residency = card(Slot("s", (A, B)), a=AWAKE, b=ASLEEP)
    residency.on_queue(100.0, "b", QueueCounts(1, first_arrival_at=100.0))
    actions = residency.on_queue(100.2, "a", QueueCounts(in_flight=1))  # its part of the same batch
    assert actions == [CallAt(106.0)]  # two swaps of 3 s each
    assert residency.tick(106.0)[0] == MemberAction(Verb.CLOSE, "a", cutoff=106.0)


def test_calls_that_come_and_go_do_not_begin_a_turn_anew_while_another_waits() -> None:
    residency = card(Slot("s", (A, B)), a=AWAKE, b=ASLEEP)
    residency.on_queue(100.0, "b", QueueCounts(1, first_arrival_at=100.0))
    for now in (100.1, 102.1, 104.1):
        residency.on_queue(now, "a", QueueCounts(in_flight=1))
        residency.on_queue(now + 1.9, "a", QueueCounts())
    assert residency.on_queue(106.1, "a", QueueCounts(in_flight=1))[0] == MemberAction(
        Verb.CLOSE, "a", cutoff=106.1
    )


def test_steps_of_two_slots_come_one_after_the_other_in_the_order_in_which_they_were_needed() -> None:
    residency = card(Slot("s", (A,)), Slot("t", (B,)), Slot("u", (C,)), a=ASLEEP, b=ASLEEP, c=ASLEEP)
    assert MemberAction(Verb.WAKE, "b") in residency.on_queue(100.0, "b", WAITS)
    assert MemberAction(Verb.WAKE, "c") not in residency.on_queue(101.0, "c", WAITS)
    assert MemberAction(Verb.WAKE, "a") not in residency.on_queue(102.0, "a", WAITS)
    assert MemberAction(Verb.WAKE, "c") in residency.on_report(103.0, "b", AWAKE)


def test_a_turn_goes_on_while_the_card_is_not_free_for_the_swap() -> None:
    residency = card(Slot("s", (A, B)), Slot("t", (C,)), a=AWAKE, b=ASLEEP, c=ASLEEP)
    residency.on_queue(100.0, "c", WAITS)
    residency.on_queue(100.0, "b", WAITS)
    assert MemberAction(Verb.CLOSE, "a", cutoff=110.0) not in residency.tick(110.0)
    assert MemberAction(Verb.CLOSE, "a", cutoff=111.0) in residency.on_report(111.0, "c", AWAKE)


def test_beside_loaded_members_an_engine_starts_again_while_another_has_the_turn() -> None:
    shared, other = Slot("s", (A, B), keeps_loaded=True), Slot("t", (C,))
    residency = card(shared, other, a=AWAKE, b=AWAKE, c=ASLEEP)
    residency.on_queue(100.0, "c", WAITS)
    residency.on_report(100.0, "b", FAILED)
    residency.on_report(100.0, "b", STOPPED)
    residency.on_queue(100.0, "a", QueueCounts(in_flight=1))
    residency.on_queue(100.0, "b", WAITS)
    start = MemberAction(Verb.START, "b")
    assert start not in residency.tick(110.0)  # the other slot's engine is in a step
    actions = residency.on_report(111.0, "c", AWAKE)
    assert start in actions
    assert not any(isinstance(a, MemberAction) and a.verb is Verb.CLOSE for a in actions)
    assert MemberAction(Verb.CLOSE, "a", cutoff=112.0) in residency.on_report(
        112.0, "b", Snapshot(State.RESIDENT, calls=WAITS)
    )


def test_a_death_frees_the_card_once_its_memory_has_come_back() -> None:
    residency = card(Slot("s", (A, B)), a=AWAKE, b=ASLEEP)
    residency.on_queue(100.0, "b", WAITS)
    assert residency.on_leave(100.0, "a") == [CallAt(103.0)]
    assert MemberAction(Verb.WAKE, "b") in residency.tick(103.0)


@pytest.mark.parametrize("state", [State.WAKING, State.FALLING_ASLEEP, State.FAILED])
def test_a_death_in_the_middle_of_a_step_leaves_the_card_free(state: State) -> None:
    residency = card(Slot("s", (A,)), Slot("t", (B,)), a=Snapshot(state), b=ASLEEP)
    assert MemberAction(Verb.WAKE, "b") not in residency.on_queue(100.0, "b", WAITS)
    residency.on_leave(100.0, "a")
    assert MemberAction(Verb.WAKE, "b") in residency.tick(103.0)


def test_of_two_found_awake_in_one_slot_one_is_put_to_sleep_before_a_turn_begins() -> None:
    residency = ResidencyScheduler([Slot("s", (A, B))], POLICY)
    residency.on_join(0.0, "a", AWAKE)
    assert MemberAction(Verb.SLEEP, "b") in residency.on_join(0.0, "b", AWAKE)
    assert MemberAction(Verb.OPEN, "a") in residency.on_report(1.0, "b", ASLEEP)


def test_a_start_that_fails_again_and_again_is_tried_ever_more_rarely() -> None:
    residency = card(Slot("s", (A,)), a=STOPPED)
    now, waits = 0.0, []
    for _ in range(4):
        assert residency.on_report(now, "a", FAILED)[0] == MemberAction(Verb.RESTART, "a")
        failed_at, stopped = now, residency.on_report(now, "a", STOPPED)
        now, _ = ticks_until(MemberAction(Verb.START, "a"), residency, stopped)
        waits.append(now - failed_at)
    assert waits == [3.0, 3.0, 4.0, 4.0]  # settling takes 3 s of it


def test_a_start_that_succeeds_ends_the_row_of_failures() -> None:
    residency = card(Slot("s", (A,)), policy=Policy(retry_s=4, max_retry_s=60), a=STOPPED)
    start, now = MemberAction(Verb.START, "a"), 0.0
    for wait_s in (4.0, 8.0):
        residency.on_report(now, "a", FAILED)
        failed_at, stopped = now, residency.on_report(now, "a", STOPPED)
        now, _ = ticks_until(start, residency, stopped)
        assert now - failed_at == wait_s
    residency.on_report(now, "a", AWAKE)
    residency.on_report(now, "a", FAILED)
    again_at, _ = ticks_until(start, residency, residency.on_report(now, "a", STOPPED))
    assert again_at - now == 4.0


def test_a_replica_that_died_while_it_started_is_not_started_again_at_once() -> None:
    residency = card(Slot("s", (A,)), policy=Policy(retry_s=5), a=STOPPED)
    residency.on_leave(1.0, "a")
    joined = residency.on_join(2.0, "a", STOPPED)
    assert ticks_until(MemberAction(Verb.START, "a"), residency, joined)[0] == 6.0


@pytest.mark.parametrize(
    ("state", "longest_s"),
    [
        (State.STARTING, 3600.0),
        (State.STOPPING, 300.0),
        (State.WAKING, 300.0),
        (State.FALLING_ASLEEP, 300.0),
    ],
)
def test_an_engine_found_in_a_step_by_a_new_keeper_gets_the_time_of_that_step(
    state: State, longest_s: float
) -> None:
    residency = ResidencyScheduler([Slot("s", (A,))])
    joined = residency.on_join(0.0, "a", Snapshot(state))
    assert ticks_until(MemberAction(Verb.RESTART, "a"), residency, joined)[0] == longest_s


def test_an_engine_that_joins_again_during_a_wake_gets_the_time_of_a_wake() -> None:
    residency = card(Slot("s", (A,)), policy=Policy(), a=ASLEEP)
    residency.on_queue(100.0, "a", WAITS)
    joined = residency.on_join(101.0, "a", Snapshot(State.WAKING, calls=WAITS))
    assert ticks_until(MemberAction(Verb.RESTART, "a"), residency, joined)[0] == 400.0


def test_a_wake_without_end_fails_and_its_replica_is_killed_until_it_is_dead() -> None:
    patient = Policy(step_timeout_s=300, restart_timeout_s=10, retry_s=1000, max_retry_s=1000)
    residency = card(Slot("s", (A,)), policy=patient, a=ASLEEP)
    actions: Sequence[Action] = residency.on_queue(100.0, "a", WAITS)
    for verb, at in ((Verb.RESTART, 400.0), (Verb.KILL, 410.0), (Verb.KILL, 420.0)):
        now, actions = ticks_until(MemberAction(verb, "a"), residency, actions)
        assert now == at
        actions = [action for action in actions if isinstance(action, CallAt)]


def test_the_seconds_of_a_start_are_not_taken_for_those_of_a_wake() -> None:
    residency = card(Slot("s", (A, B)), a=STOPPED, b=ASLEEP)
    residency.on_report(10.0, "a", Snapshot(State.RESIDENT, took_s=10.0))
    residency.on_queue(100.0, "b", QueueCounts(1, first_arrival_at=100.0))
    residency.tick(101.0)
    residency.on_report(101.0, "a", AWAKE)
    residency.on_report(102.0, "a", ASLEEP)
    residency.on_report(104.0, "b", AWAKE)
    actions = residency.on_queue(200.0, "a", QueueCounts(1, first_arrival_at=200.0))
    assert actions == [CallAt(200.0 + 0.1 * (B.sleep_s + A.wake_s))]


def test_measured_seconds_take_the_place_of_the_estimates() -> None:
    residency = card(Slot("s", (A, B)), a=AWAKE, b=ASLEEP)
    for awake, asleep, now in (("a", "b", 100.0), ("b", "a", 200.0)):
        residency.on_queue(now, asleep, QueueCounts(1, first_arrival_at=now))
        residency.tick(now + 10)
        residency.on_report(now + 10, awake, AWAKE)
        residency.on_report(now + 20, awake, Snapshot(State.ASLEEP, took_s=10.0))
        residency.on_report(now + 40, asleep, Snapshot(State.RESIDENT, took_s=20.0))
        residency.on_queue(now + 50, asleep, QueueCounts())
    assert residency.on_queue(300.0, "b", QueueCounts(1, first_arrival_at=300.0)) == [
        CallAt(303.0)
    ]  # 10 % of 30 s
