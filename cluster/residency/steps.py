"""The steps by which an engine leaves the card and comes back, and which step a slot needs next. Pure.

One table serves both sides: the scheduler orders the steps, and the replica carries them out.
"""

from dataclasses import dataclass

from cluster.residency.messages import Verb
from cluster.residency.policy import Policy, choose_next, first_by_queue
from cluster.residency.state import State
from cluster.residency.view import MemberState, SlotState

DURING = {
    Verb.START: State.STARTING,
    Verb.STOP: State.STOPPING,
    Verb.WAKE: State.WAKING,
    Verb.SLEEP: State.FALLING_ASLEEP,
}
"""The state of an engine during each step."""
AFTER = {
    Verb.START: State.RESIDENT,
    Verb.STOP: State.STOPPED,
    Verb.WAKE: State.RESIDENT,
    Verb.SLEEP: State.ASLEEP,
}
"""The state of an engine after each step."""
STEP_IN = {state: verb for verb, state in DURING.items()}
"""The step that an engine takes in each of these states."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step that a slot needs from an engine."""

    verb: Verb
    """START, STOP, WAKE or SLEEP."""
    member: MemberState
    """The member whose engine takes the step."""
    reason: str
    """Why, for the log (`MemberAction.reason`)."""


def loading_step(slot: SlotState, now: float) -> Step | None:
    """In a slot that keeps all loaded: the start or wake of a member beside the others."""
    chosen = first_by_queue(slot.to_load(now))
    return _return_step(chosen, "all members of its slot stay loaded") if chosen else None


def step_towards(slot: SlotState, chosen: MemberState, reason: str) -> Step | None:
    """The step that the slot needs before the turn of `chosen` can open.

    1. A member is awake that is not the chosen one, and the slot has room for only one: that member
       leaves.
    2. The chosen member is away: its engine starts or wakes.
    3. The chosen member is awake: no step is needed, unless its engine has never slept.
    4. The chosen member's engine is in a step already: no step.

    Args:
        slot: the slot. No member holds its turn.
        chosen: the member that is next.
        reason: why it is next, for the log.
    """
    others = [member for member in slot.awake if member is not chosen]
    if others and not slot.keeps_loaded:  # (1)
        return leave_step(others[0], f"{chosen.name} is next: {reason}")
    if chosen.is_unloaded or chosen.state is State.ASLEEP:  # (2)
        return _return_step(chosen, reason)
    if slot.owes_sleep(chosen):  # (3)
        return Step(Verb.SLEEP, chosen, "it has to sleep once before it takes calls")
    return None  # (3), (4)


def leave_step(member: MemberState, reason: str) -> Step:
    """The step by which an awake member leaves the card."""
    return Step(member.leave_verb, member, reason)


def _return_step(member: MemberState, reason: str) -> Step:
    verb = Verb.START if member.is_unloaded else Verb.WAKE
    return Step(verb, member, reason)


@dataclass(frozen=True, slots=True)
class Choice:
    """The member that is next in a slot, and why."""

    member: MemberState
    reason: str
    """For the log; it completes the sentence "... because"."""


def next_in_turn(slot: SlotState, now: float, policy: Policy) -> Choice | None:
    """The member that is next in a slot where no member holds the turn; None if nobody is.

    1. A member wants a turn: rule 4 of `policy` chooses.
    2. The slot has idled for long enough, and a member has lost its engine: that member.
    3. An engine is awake: its turn opens although nobody asks, so that its calls start at once.
    4. All members are away: the first of the recipe comes back.
    """
    wanting = choose_next(slot.wanting(now), slot.last_holder, now, size=len(slot.members))  # (1)
    if wanting is not None:
        return Choice(wanting, _need(wanting))
    if now >= slot.idle_since() + policy.restore_idle_s and (lost := slot.to_restore(now)):  # (2)
        return Choice(lost[0], "it has lost its engine, and nobody asks")
    if awake := slot.awake:  # (3)
        return Choice(awake[0], "no other member has calls")
    if (first := slot.first_to_return(now)) is not None:  # (4)
        return Choice(first, "all members of its slot are away")
    return None


def _need(member: MemberState) -> str:
    count = member.calls.waiting
    if not count:
        return "its replica is new"
    return "1 call waits for it" if count == 1 else f"{count} calls wait for it"
