"""When a turn ends, and whose turn is next: the rules of the scheduler, without its bookkeeping.

1. Collate: an open turn goes on while no other member of the slot waits. When another waits, the calls
   that have arrived are still served; later ones wait for the next turn.
2. Do not swap to save a fraction of a swap: that cutoff falls no sooner than `linger_share` of the
   swap's seconds after the other began to wait, and a turn that has work lasts `min_turn_swaps` swaps,
   counted from the first call to the slot if it idled before, because the rest of a batch comes a
   moment after that call. A turn that has run out of calls lingers for `linger_share` only.
3. A call out of patience ends the turn after the calls in flight, but not before the turn has lasted
   one swap and `min_turn_s`: under overload every call runs out of patience, and there must be
   progress.
4. Next is the longest queue, ties in the order of the recipe: proposers come before the
   aggregator that waits for them. Two kinds of members come before that, the one whose last turn
   is longest ago first: out of patience, or passed over as often as the slot has members.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.residency.state import MemberState


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of the rules, and how long to wait for what may never come."""

    linger_share: float = 0.1
    """Rule 2, as a share of a swap's seconds."""
    min_turn_swaps: float = 2.0
    """Rule 2, in swaps."""
    min_turn_s: float = 1.0
    """Rule 3."""
    join_wait_s: float = 8.0
    """A new keeper gives no turn before all members have joined, or this time is over. It is longer
    than a lease, so that every turn of the last keeper has run out by then."""
    settle_s: float = 0.0
    """The memory of a dead engine comes back this much later: no step on the card before that."""
    step_timeout_s: float = 300.0
    """Longest sleep or wake; after that the engine counts as failed."""
    start_timeout_s: float = 3600.0
    """Longest start; after that the engine counts as failed. It may download weights."""
    restart_timeout_s: float = 10.0
    """A failed replica that has not freed its engine by then is killed."""
    retry_s: float = 1.0
    """Wait before a failed member is started again; it doubles with each failure in a row."""
    max_retry_s: float = 60.0
    """Longest such wait."""

    def retry_wait_s(self, failures: int) -> float:
        """The wait after a failure that follows on `failures` others."""
        return min(self.max_retry_s, self.retry_s * 2.0**failures)


def choose_next(
    members: Sequence[MemberState], last_holder: MemberState | None, now: float
) -> MemberState | None:
    """The member that gets the next turn by rule 4; None if nobody wants it.

    `last_holder` had the last turn, and gets the next one only if no other member wants it.
    """
    wanting = [member for member in members if member.wants_turn(now)]
    others = [member for member in wanting if member is not last_holder] or wanting
    first = [
        member
        for member in others
        if member.calls.first_due_at <= now or member.times_passed_over >= len(members)
    ]
    if first:
        return min(first, key=lambda m: (m.turn_ended_at, m.waits_since, m.member.recipe_index))
    return max(others, key=_queue_length_then_order, default=None)


def _queue_length_then_order(member: MemberState) -> tuple[int, int]:
    # Engines without a call yet start from last to first, so that the first proposer is left awake.
    index = member.member.recipe_index
    return member.calls.waiting, -index if member.calls.waiting else index


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """When a turn ends, in two stages."""

    cutoff_at: float
    """From then on only calls that have arrived may start (rules 1 and 2)."""
    stop_at: float
    """From then on no call may start (rule 3)."""


def turn_end(
    holder: MemberState, rivals: Sequence[MemberState], swap_s: float, policy: Policy
) -> TurnEnd:
    """When the turn of `holder` ends if `rivals` want the slot and a swap takes `swap_s`."""
    linger_s = policy.linger_share * swap_s
    waited_since = min(rival.waits_since for rival in rivals)
    if holder.calls.has_any:
        work_s = policy.min_turn_swaps * swap_s
        cutoff_at = max(waited_since + linger_s, holder.turn_opened_at + work_s)
    else:
        cutoff_at = max(waited_since, holder.queue_empty_at) + linger_s
    due_at = min(rival.calls.first_due_at for rival in rivals)
    return TurnEnd(cutoff_at, max(due_at, holder.turn_opened_at + max(policy.min_turn_s, swap_s)))
