"""Whether the turn of a slot's holder closes now, and for which of its calls. Pure."""

import math
from dataclasses import dataclass

from cluster.residency.moment import Moment
from cluster.residency.policy import Policy, choose_next, turn_end
from cluster.residency.state import TurnState
from cluster.residency.view import MemberState, SlotState


@dataclass(frozen=True, slots=True)
class Close:
    """The holder's turn closes."""

    cutoff: float
    """Calls that arrived up to this time may still start; minus infinity for none."""
    reason: str
    """Why, for the log; it completes the sentence "... because"."""


def closing(slot: SlotState, holder: MemberState, moment: Moment, policy: Policy) -> Close | None:
    """How the turn of `holder` closes; None if it goes on. The card is free for the steps of a swap.

    1. No other member wants the slot: the turn goes on, unless a member has lost its engine and the
       slot has idled for long enough to start that engine again.
    2. A rival's call is out of patience: from now on no call of the holder may start.
    3. A rival has waited long enough: only calls of the holder that have arrived may still start.
    """
    now = moment.now
    rivals = [member for member in slot.wanting(now) if member is not holder]
    chosen = choose_next(rivals, None, now, size=len(slot.members))
    if chosen is None:  # (1)
        return _to_restore(slot, holder, moment, policy)
    end = turn_end(holder, rivals, slot.swap_s(holder, chosen), policy)
    if holder.cutoff > -math.inf and moment.has_reached(end.stop_at):  # (2)
        return Close(-math.inf, "a call to another member is out of patience")
    if holder.turn is TurnState.OPEN and moment.has_reached(end.cutoff_at):  # (3)
        return Close(now, f"{chosen.name} waits")
    return None


def _to_restore(slot: SlotState, holder: MemberState, moment: Moment, policy: Policy) -> Close | None:
    """Close an idle turn so that a member that has lost its engine can be started again."""
    lost = [member for member in slot.to_restore(moment.now) if member is not holder]
    idle_until = slot.idle_since() + policy.restore_idle_s
    if not lost or idle_until == math.inf or holder.turn is not TurnState.OPEN:
        return None
    if not moment.has_reached(idle_until):
        return None
    return Close(moment.now, f"{lost[0].name} has lost its engine, and nobody asks")
