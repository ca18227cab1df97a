"""What a keeper says of its card to those who watch it."""

import pytest

from actors.keeper.card_keeper import StepTimes
from actors.keeper.card_report import card_report
from actors.keeper.kept_card import KeptCard, MemberBytes
from actors.keeper.ray_keeper import RayKeeper
from cluster.residency.messages import Snapshot, Verb
from cluster.residency.state import Member, QueueCounts, Slot, State, TurnState

CARD = KeptCard(
    app="slimmoa",
    node="n1",
    gpus=(0,),
    slots=(Slot("0", (Member("a/0"), Member("b/0"))), Slot("1", (Member("c/0"),))),
    members=(("a/0", MemberBytes(100, 10, 110)), ("b/0", MemberBytes(70, 7, 70))),
    name="NVIDIA L4",
    total_bytes=500,
)
WAITS = Snapshot(State.ASLEEP, calls=QueueCounts(waiting=2, first_arrival_at=-3.5), failure="it fell")
WRITES = Snapshot(State.RESIDENT, TurnState.OPEN, QueueCounts(in_flight=1), took_s=2.0)


def test_a_report_has_the_plan_and_what_the_members_do() -> None:
    report = card_report(
        CARD,
        {"a/0": WRITES, "b/0": WAITS, "c/0": Snapshot(State.ABSENT)},
        {("a/0", Verb.WAKE): 3, ("b/0", Verb.WAKE): 1, ("a/0", Verb.OPEN): 4},
        {("a/0", State.RESIDENT): 6.0},
        {
            "a/0": StepTimes(since_s=7.0, expected_s=None, last_s=2.0),
            "b/0": StepTimes(since_s=1.0, expected_s=None, last_s=None),
            "c/0": StepTimes(since_s=0.0, expected_s=3.0, last_s=None),
        },
    )
    assert (report.node, report.gpus, report.name, report.total_bytes) == ("n1", (0,), "NVIDIA L4", 500)
    a, b, c = report.members
    assert (a.name, a.slot, a.state, a.turn) == ("a/0", "0", "resident", "open")
    assert (a.in_flight, a.waiting, a.oldest_wait_s, a.last_step_s) == (1, 0, 0.0, 2.0)
    assert (a.awake_bytes, a.asleep_bytes) == (100, 10)
    assert a.orders == {"wake": 3, "open": 4}
    assert a.step_seconds == {"resident": 6.0}
    assert (b.state, b.waiting, b.oldest_wait_s, b.failure) == ("asleep", 2, 3.5, "it fell")
    assert (c.slot, c.state, c.awake_bytes) == ("1", "absent", 0)
    assert (a.since_s, a.expected_s) == (7.0, None)
    assert (c.expected_s, c.last_step_s) == (3.0, None)


@pytest.mark.virtual_time
async def test_a_keeper_reports_its_card(monkeypatch: pytest.MonkeyPatch) -> None:
    class Context:
        was_current_actor_reconstructed = False

    monkeypatch.setattr("ray.get_runtime_context", Context)
    keeper = RayKeeper(CARD.slots, card=CARD)
    report = await keeper.card_report()
    assert report is not None
    assert [(m.name, m.state) for m in report.members] == [
        ("a/0", State.ABSENT),
        ("b/0", State.ABSENT),
        ("c/0", State.ABSENT),
    ]
    assert await RayKeeper(CARD.slots).card_report() is None
