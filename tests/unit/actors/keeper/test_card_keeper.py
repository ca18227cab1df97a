"""The keeper alone: replicas are played by hand, message by message, in virtual time."""

import asyncio

import pytest

from actors.keeper.card_keeper import EMPTY_S, PING_S, CardKeeper
from actors.keeper.protocol import POLL_S
from cluster.residency.messages import Order, PollReply, Snapshot, Verb
from cluster.residency.policy import Policy
from cluster.residency.state import Member, QueueCounts, Slot, State, TurnState
from tests.unit.scripts import clock_ahead_s

pytestmark = pytest.mark.virtual_time

POLICY = Policy(join_wait_s=8, restart_timeout_s=5)
AWAKE = Snapshot(State.RESIDENT, has_slept=True)
ASLEEP, NEW = Snapshot(State.ASLEEP), Snapshot(State.NOT_STARTED)
WAITS = QueueCounts(waiting=1, first_arrival_at=-2.0, first_due_at=28.0)


class Scene:
    """A keeper of members a and b in one slot. The replicas in `dead` answer no ping."""

    def __init__(self) -> None:
        self.dead: set[str] = set()
        self.killed: list[str] = []
        self.retired = 0
        slot = Slot("s", (Member("a", 0, 1.0, 1.0), Member("b", 1, 1.0, 1.0)))
        self.keeper = CardKeeper([slot], POLICY, self._alive, self._kill, self._retire)

    async def _alive(self, replica: str) -> bool:
        return replica not in self.dead

    async def _kill(self, replica: str) -> None:
        self.killed.append(replica)

    async def _retire(self) -> None:
        self.retired += 1

    async def join(self, name: str, found: Snapshot) -> str:
        ticket = await self.keeper.join(name, name, found, name)
        assert ticket is not None
        return ticket

    async def order(self, ticket: str, after: int = 0) -> tuple[int, Verb] | None:
        reply = await self.keeper.poll(ticket, after)
        assert reply.known
        return None if reply.order is None else (reply.order.number, reply.order.verb)


async def test_a_new_keeper_gives_no_turn_before_every_member_has_joined() -> None:
    card = Scene()
    a = await card.join("a", AWAKE)
    assert await card.order(a) is None
    await card.join("b", ASLEEP)
    assert await card.order(a) == (1, Verb.OPEN)


async def test_a_member_that_does_not_join_is_waited_for_until_the_leases_have_run_out() -> None:
    card, loop = Scene(), asyncio.get_running_loop()
    a = await card.join("a", AWAKE)
    while (order := await card.order(a)) is None:
        assert loop.time() < POLICY.join_wait_s + POLL_S
    assert order == (1, Verb.OPEN)
    assert loop.time() >= POLICY.join_wait_s


async def test_a_turn_that_the_last_keeper_opened_is_drained_before_another_begins() -> None:
    card = Scene()
    a = await card.join("a", Snapshot(State.RESIDENT, TurnState.OPEN, QueueCounts(in_flight=1)))
    b = await card.join("b", Snapshot(State.ASLEEP, calls=WAITS))
    assert await card.order(a) == (1, Verb.CLOSE)
    await card.keeper.report(
        a, 1, Snapshot(State.RESIDENT, TurnState.CLOSING, QueueCounts(in_flight=1))
    )
    assert await card.order(a, after=1) is None
    assert await card.order(b) is None
    await card.keeper.report(a, 1, AWAKE)
    assert await card.order(a, after=1) == (2, Verb.SLEEP)
    assert await card.order(b) is None
    await card.keeper.report(a, 2, ASLEEP)
    assert await card.order(b) == (1, Verb.WAKE)


async def test_a_report_older_than_the_last_order_counts_for_its_queue_only() -> None:
    card = Scene()
    a, b = await card.join("a", AWAKE), await card.join("b", ASLEEP)
    await card.keeper.report(b, 0, Snapshot(State.ASLEEP, calls=WAITS))
    assert await card.order(a, after=1) == (2, Verb.CLOSE)
    await card.keeper.report(a, 1, AWAKE)  # sent before CLOSE came
    assert (await card.keeper.snapshots())["a"].turn is TurnState.CLOSING
    await card.keeper.report(a, 2, AWAKE)
    assert await card.order(a, after=2) == (3, Verb.SLEEP)


async def test_the_cutoff_is_sent_in_seconds_from_now() -> None:
    card = Scene()
    a, b = await card.join("a", AWAKE), await card.join("b", ASLEEP)
    busy = QueueCounts(waiting=1, in_flight=1, first_arrival_at=0.0)
    await card.keeper.report(a, 1, Snapshot(State.RESIDENT, TurnState.OPEN, busy))
    await card.keeper.report(b, 0, Snapshot(State.ASLEEP, calls=WAITS))
    assert await card.order(a, after=1) is None
    await asyncio.sleep(7)  # the cutoff was at 4 s, two swaps after the turn began
    reply = await card.keeper.poll(a, 1)
    order = Order(2, Verb.CLOSE, cutoff_s=4.0 - (POLL_S + 7))
    assert reply == PollReply(known=True, order=order, is_up=True)


@pytest.mark.parametrize("ahead_s", [0.0, 1000.0, -1000.0])
async def test_times_of_a_queue_count_from_the_sending_of_each_message(ahead_s: float) -> None:
    clock_ahead_s.set(ahead_s)
    card = Scene()
    b = await card.join("b", Snapshot(State.ASLEEP, calls=WAITS))
    assert (await card.keeper.snapshots())["b"].calls == WAITS
    await asyncio.sleep(3)
    later = QueueCounts(waiting=1, first_arrival_at=-5.0, first_due_at=25.0)
    assert (await card.keeper.snapshots())["b"].calls == later
    await card.keeper.report(b, 0, Snapshot(State.ASLEEP, calls=WAITS))
    assert (await card.keeper.snapshots())["b"].calls == WAITS


async def test_a_dead_replica_is_noticed_and_its_turn_passes_on() -> None:
    card, loop = Scene(), asyncio.get_running_loop()
    a, b = await card.join("a", AWAKE), await card.join("b", Snapshot(State.ASLEEP, calls=WAITS))
    card.dead.add("a")
    assert await card.order(b) == (1, Verb.WAKE)
    assert loop.time() <= PING_S
    assert await card.keeper.poll(a, 0) == PollReply(known=False)
    assert await card.keeper.report(a, 1, AWAKE) is False


async def test_no_second_replica_becomes_a_member_while_the_first_lives() -> None:
    card = Scene()
    await card.join("a", AWAKE)
    assert await card.keeper.join("a", "other process", NEW, "other") is None
    card.dead.add("a")
    await asyncio.sleep(2 * PING_S)
    assert await card.keeper.join("a", "other process", NEW, "other") is not None
    assert (await card.keeper.snapshots())["a"].state is State.NOT_STARTED


async def test_an_actor_that_ray_restarted_counts_as_dead_and_as_a_new_replica() -> None:
    card = Scene()
    old = await card.join("a", AWAKE)
    await card.join("b", ASLEEP)
    new = await card.keeper.join("a", "new process", NEW, "a")
    assert new is not None
    assert (await card.keeper.poll(old, 0)).known is False
    assert await card.order(new) == (1, Verb.START)


async def test_the_same_process_joining_again_is_taken_as_it_is() -> None:
    card = Scene()
    old = await card.join("a", AWAKE)
    await card.join("b", ASLEEP)
    polling = asyncio.create_task(card.keeper.poll(old, 1))
    await asyncio.sleep(0)
    new = await card.join("a", AWAKE)
    assert await polling == PollReply(known=False)
    assert await card.order(new) == (1, Verb.OPEN)


async def test_a_replica_that_does_not_restart_is_killed_and_the_card_is_free_once_it_is_dead() -> None:
    card = Scene()
    a, b = await card.join("a", AWAKE), await card.join("b", Snapshot(State.ASLEEP, calls=WAITS))
    await card.keeper.report(a, 1, Snapshot(State.FAILED))
    assert await card.order(a, after=1) == (2, Verb.RESTART)
    await asyncio.sleep(POLICY.restart_timeout_s + 1)
    assert card.killed == ["a"]
    assert await card.order(b) is None
    card.dead.add("a")
    assert await card.order(b) == (1, Verb.WAKE)


async def test_orders_are_counted_so_that_swaps_can_be_seen() -> None:
    card = Scene()
    await card.join("a", AWAKE)
    b = await card.join("b", ASLEEP)
    assert await card.keeper.order_counts() == {("a", Verb.OPEN): 1}
    await card.keeper.report(b, 0, Snapshot(State.ASLEEP, calls=WAITS))
    await asyncio.sleep(1)
    assert await card.keeper.order_counts() == {("a", Verb.OPEN): 1, ("a", Verb.CLOSE): 1}


async def test_the_seconds_of_a_step_are_counted_once_however_often_they_are_reported() -> None:
    card = Scene()
    a, b = await card.join("a", AWAKE), await card.join("b", ASLEEP)
    await card.keeper.report(b, 0, Snapshot(State.ASLEEP, calls=WAITS))
    await asyncio.sleep(1)
    await card.keeper.report(a, 2, AWAKE)
    await card.keeper.report(a, 3, Snapshot(State.FALLING_ASLEEP, took_s=9.0))  # of its last step
    for _ in range(2):
        await card.keeper.report(a, 3, Snapshot(State.ASLEEP, took_s=0.5))
    await card.keeper.report(b, 1, Snapshot(State.RESIDENT, took_s=2.0))
    expected = {("a", State.ASLEEP): 0.5, ("b", State.RESIDENT): 2.0}
    assert await card.keeper.step_seconds() == expected


async def test_each_swap_is_logged_with_its_reason_and_its_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", "actors.keeper.step_lines")
    card = Scene()
    a, b = await card.join("a", AWAKE), await card.join("b", ASLEEP)
    await card.keeper.report(b, 0, Snapshot(State.ASLEEP, calls=WAITS))
    await asyncio.sleep(1)
    await card.keeper.report(a, 2, AWAKE)
    await card.keeper.report(a, 3, Snapshot(State.ASLEEP, took_s=0.5))
    await card.keeper.report(b, 1, Snapshot(State.RESIDENT, calls=WAITS, took_s=2.25))
    assert caplog.messages == [
        'open member=a why="no other member has calls"',
        'close member=a why="b waits"',
        'swap step=sleep member=a seconds=0.5 waiting=0 why="b is next: 1 call waits for it"',
        'swap step=wake member=b seconds=2.25 waiting=1 why="1 call waits for it"',
        'open member=b why="1 call waits for it"',
    ]
    levels = [record.levelname for record in caplog.records]
    assert levels == ["DEBUG", "DEBUG", "INFO", "INFO", "DEBUG"]


async def test_a_step_that_takes_too_long_is_said_again_and_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "actors.keeper.step_lines")
    card = Scene()
    a, b = await card.join("a", AWAKE), await card.join("b", ASLEEP)
    await card.keeper.report(b, 0, Snapshot(State.ASLEEP, calls=WAITS))
    await asyncio.sleep(1)
    await card.keeper.report(a, 2, AWAKE)
    await card.keeper.report(a, 3, ASLEEP)  # from now on, b wakes
    caplog.clear()
    times = (await card.keeper.step_times())["b"]
    await asyncio.sleep(25)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * len(caplog.records)
    said = [message.split() for message in caplog.messages]
    assert [line[:3] for line in said] == [["slow", "step=wake", "member=b"]] * len(said)
    since = [float(line[3].removeprefix("since_s=")) for line in said]
    assert since[0] >= 5.0
    assert since[1] == 2 * since[0]
    assert "waiting=1" in said[0]
    times = (await card.keeper.step_times())["b"]
    assert times.since_s == 25.0
    assert times.expected_s is not None
    await card.keeper.report(b, 1, Snapshot(State.RESIDENT, calls=WAITS, took_s=25.0))
    caplog.clear()
    await asyncio.sleep(100)
    assert not caplog.messages
    assert (await card.keeper.step_times())["b"].last_s == 25.0


async def test_a_member_of_no_slot_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'c'"):
        await Scene().keeper.join("c", "c", NEW, "c")


async def test_a_keeper_without_replicas_ends_after_a_while_unless_one_comes() -> None:
    card = Scene()
    await card.join("a", AWAKE)
    await asyncio.sleep(2 * EMPTY_S)
    assert card.retired == 0, "it has a replica"
    card.dead.add("a")
    await asyncio.sleep(PING_S + EMPTY_S / 2)
    await card.join("b", NEW)
    await asyncio.sleep(2 * EMPTY_S)
    assert card.retired == 0, "another has come in time"
    card.dead.add("b")
    await asyncio.sleep(PING_S + EMPTY_S)
    assert card.retired == 1
