"""When a turn ends, and whose turn is next: the rules of the scheduler, without its bookkeeping.

In a swap the member with the turn leaves the card, and the next one comes back. A member leaves by
falling asleep and comes back by waking, or it leaves by a stop and comes back by a start, which takes
much longer. The rules count the seconds of these very steps.

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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cluster.residency.messages import Verb
from cluster.residency.view import MemberState


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
    """Seconds until the memory of an engine that died or ended is free. No engine of the card begins a
    step before that."""
    restore_idle_s: float = 10.0
    """A member that has lost its engine is started again without a call once its slot has idled for so
    many seconds, so that no user waits for the start."""
    step_timeout_s: float = 300.0
    """Most seconds of a sleep, wake or stop; after that the engine counts as failed."""
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

    def longest_s(self, step: Verb) -> float:
        """Most seconds of a step."""
        return self.start_timeout_s if step is Verb.START else self.step_timeout_s


CPU_POLICY = Policy()
"""The numbers for a card that is a CPU: the memory of a process is free as soon as it has ended."""
GPU_POLICY = Policy(settle_s=2.0, restart_timeout_s=30.0)
"""The numbers for a card that is a GPU. A killed engine's process lives up to half a second longer than
its replica (`actors/engines/vllm_child.py`), and the driver then frees its memory. The end of an engine
with tens of gigabytes may take 18 s (`actors/engines/vllm_processes.py`)."""


def choose_next(
    wanting: Sequence[MemberState], last_holder: MemberState | None, now: float, *, size: int
) -> MemberState | None:
    """The member that gets the next turn by rule 4; None if no member wants a turn.

    Args:
        wanting: the members that want a turn.
        last_holder: had the last turn. It gets the next turn only if no other member wants a turn.
        now: the time.
        size: how many members the slot has.
    """
    others = [member for member in wanting if member is not last_holder] or wanting
    first = [
        member
        for member in others
        if member.calls.first_due_at <= now or member.times_passed_over >= size
    ]
    if first:
        return min(first, key=lambda m: (m.turn_ended_at, m.waits_since, m.member.recipe_index))
    return first_by_queue(others)


def first_by_queue(members: Iterable[MemberState]) -> MemberState | None:
    """The member with the longest queue; None if there are no members.

    Engines without a call start from last to first, so that the first proposer is awake in the end.
    """

    def queue_length_then_order(member: MemberState) -> tuple[int, int]:
        index = member.member.recipe_index
        return member.calls.waiting, -index if member.calls.waiting else index

    return max(members, key=queue_length_then_order, default=None)


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
