"""When a turn ends, and whose turn is next: the rules of the scheduler, without its bookkeeping.

A swap puts the member with the turn to sleep and wakes the next one.

1. Collate: an open turn goes on while no other member of the slot waits. When another member waits, the
   turn gets a cutoff: calls that have arrived by then are still served; later ones wait for the next
   turn.
2. Do not swap too soon. The cutoff comes at least `linger_share` of a swap's seconds after the other
   member began to wait. A turn that has calls also lasts `min_turn_swaps` swaps at least. If the
   slot idled, they count from the first call to the slot: the rest of a batch comes a moment later.
   A turn that has run out of calls only lingers, for `linger_share` of a swap.
3. If a call of another member runs out of patience, the turn ends after the calls in flight, but not
   before it has lasted one swap and `min_turn_s`: under overload every call runs out of patience, and
   there must be progress.
4. The longest queue gets the next turn; among equals, the member that is first in the recipe, so that
   proposers come before the aggregator that waits for them. But first of all come members with a call
   out of patience, and members passed over as often as the slot has members. Among these, the one whose
   last turn is longest ago is first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.residency.state import MemberState


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of the rules, and how long to wait for what may never come."""

    linger_share: float = 0.1
    """Rule 2: how long a turn lingers while another member waits, as a share of a swap's seconds."""
    min_turn_swaps: float = 2.0
    """Rule 2: how long a turn with calls lasts at least, in swaps."""
    min_turn_s: float = 1.0
    """Rule 3: seconds that a turn lasts at least, even if calls of others are out of patience."""
    join_wait_s: float = 8.0
    """A new keeper gives no turn before all members have joined or these seconds are over. They are
    longer than a lease, so that every turn of the last keeper has run out by then."""
    settle_s: float = 0.0
    """Seconds until a dead engine's memory is free. No start, sleep or wake on the card before that."""
    step_timeout_s: float = 300.0
    """Most seconds of a sleep or wake; after that the engine counts as failed."""
    start_timeout_s: float = 3600.0
    """Most seconds of a start, which may download weights; after that the engine counts as failed."""
    restart_timeout_s: float = 10.0
    """A failed replica is killed if it has not freed its engine after this many seconds."""
    retry_s: float = 1.0
    """Seconds before a failed member is started again. They double with each failure in a row."""
    max_retry_s: float = 60.0
    """Most seconds before a failed member is started again."""

    def retry_wait_s(self, failures: int) -> float:
        """Seconds to wait after a failure that `failures` others have preceded in a row."""
        return min(self.max_retry_s, self.retry_s * 2.0**failures)


def choose_next(
    members: Sequence[MemberState], last_holder: MemberState | None, now: float
) -> MemberState | None:
    """The member that gets the next turn by rule 4; None if no member wants a turn.

    `last_holder` had the last turn. It gets the next turn only if no other member wants a turn.
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
    """The times, on the keeper's clock, at which a turn ends in two stages."""

    cutoff_at: float
    """From then on only calls that have arrived may start (rules 1 and 2)."""
    stop_at: float
    """From then on no call may start (rule 3)."""


def turn_end(
    holder: MemberState, rivals: Sequence[MemberState], swap_s: float, policy: Policy
) -> TurnEnd:
    """When the turn of `holder` ends if `rivals` want a turn and a swap takes `swap_s` seconds."""
    linger_s = policy.linger_share * swap_s
    waited_since = min(rival.waits_since for rival in rivals)
    if holder.calls.has_any:
        work_s = policy.min_turn_swaps * swap_s
        cutoff_at = max(waited_since + linger_s, holder.turn_opened_at + work_s)
    else:
        cutoff_at = max(waited_since, holder.queue_empty_at) + linger_s
    due_at = min(rival.calls.first_due_at for rival in rivals)
    return TurnEnd(cutoff_at, max(due_at, holder.turn_opened_at + max(policy.min_turn_s, swap_s)))
