"""Replicas killed at each step of a slot where some members sleep and others are stopped, simulated."""

import random
from functools import partial
from itertools import product

import pytest

from cluster.residency.messages import Verb
from cluster.residency.policy import Policy
from cluster.residency.state import Member, Slot, State
from tests.unit.cluster.residency.simulated import Call, Replica, World

POLICY = Policy(join_wait_s=8, settle_s=2, step_timeout_s=60, start_timeout_s=60, restart_timeout_s=5)
NOTICE_S = 3.0
"""Longest time until the keeper notices a death (`World.die`)."""
CALL_S = 2.0
PATIENCE_S = 10.0


def slot(stops: str) -> Slot:
    """Members a, b and c; those named in `stops` are stopped between their turns."""
    return Slot(
        "s",
        tuple(
            Member(name, i, wake_s=1.0, sleep_s=0.5, stops=name in stops, start_s=6.0, stop_s=1.5)
            for i, name in enumerate("abc")
        ),
    )


def lasts_in(replica: Replica, moment: str) -> bool:
    if moment == "between":  # away, while nothing happens to it
        return replica.state in (State.ASLEEP, State.STOPPED)
    if moment == "during calls":
        return bool(replica.in_flight)
    return replica.state == moment


MOMENTS: tuple[str, ...] = (
    "starting",
    "stopping",
    "falling asleep",
    "waking",
    "resident",
    "between",
    "during calls",
)


MIXES = ("abc", "bc", "c", "")
"""Which members are stopped between their turns."""
CASES = [
    (moment, stops, victim)
    for moment, stops, victim in product(MOMENTS, MIXES, "abc")
    if not (moment == "stopping" and victim not in stops)
    and not (moment in ("falling asleep", "waking") and victim in stops)
]


@pytest.mark.parametrize(("moment", "stops", "victim"), CASES)
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_each_moment_nobody_starves(moment: str, stops: str, victim: str, seed: int) -> None:
    world = World([slot(stops)], seed, latency_s=0.05, policy=POLICY)
    world.run()
    rng, began = random.Random(seed), world.now
    calls: list[tuple[str, Call]] = []
    for _ in range(60):
        name, call = rng.choice("abc"), Call(rng.uniform(0.1, CALL_S), PATIENCE_S)
        calls.append((name, call))
        world.after(rng.uniform(0, 60), partial(world.ask, name, call))
    kills: list[float] = []

    def look() -> None:
        """Kill the victim in this moment: twice, with the restart between the two."""
        replica = world.replicas[victim]
        if lasts_in(replica, moment) and (not kills or world.now > kills[-1] + 20):
            kills.append(world.now)
            world.die(victim)
        if world.now < began + 70 and len(kills) < 2:
            world.after(rng.uniform(0.02, 0.2), look)

    if moment == "starting" and victim not in stops:  # only the replica after a death starts again
        world.after(1.0, partial(world.die, victim))
    world.after(2.0, look)
    world.run()
    assert kills
    lost = [(name, call) for name, call in calls if not call.is_served]
    assert all(call.is_lost and name == victim for name, call in lost), "only its own calls are lost"
    # The bound of the scheduler's docstring, and for each death the time to notice it, the back-off,
    # the memory's return, and the swaps by which the victim starts and leaves the card again.
    swap_s = 1.5 + POLICY.settle_s + 6.0 + 8 * world.latency_s
    turn_s = max(POLICY.min_turn_s, swap_s) + CALL_S + swap_s
    bound_s = 2 * turn_s + swap_s
    deaths = len(kills) + (moment == "starting")
    bound_s += deaths * (NOTICE_S + POLICY.retry_s + POLICY.settle_s + turn_s)
    assert {name: s for name, s in world.late_s.items() if s > bound_s} == {}
    assert all(replica.state is not State.NOT_STARTED for replica in world.replicas.values())
    assert (Verb.START, victim) in world.steps[3:]


@pytest.mark.parametrize("stops", MIXES)
@pytest.mark.parametrize("seed", range(10))
def test_a_keeper_killed_at_any_time_learns_the_third_state_too(stops: str, seed: int) -> None:
    world = World([slot(stops)], seed, latency_s=0.05, policy=POLICY)
    rng, calls = random.Random(seed), []
    for _ in range(40):
        name, call = rng.choice("abc"), Call(rng.uniform(0.1, CALL_S), PATIENCE_S)
        calls.append(call)
        world.after(rng.uniform(20, 80), partial(world.ask, name, call))
    for _ in range(3):
        world.after(rng.uniform(0, 90), world.new_keeper)
    world.run()
    assert all(call.is_served for call in calls)
    assert [name for verb, name in world.steps if verb is Verb.STOP and name not in stops] == []
