"""Plain data about a card's slots: their members, the states of engines and turns, and counts of calls.

Times are seconds on the keeper's clock, unless a docstring says otherwise.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum


class State(StrEnum):
    """What a member's engine is doing; `scheduler` has the table of what leads from state to state."""

    ABSENT = "absent"
    """There is no replica."""
    NOT_STARTED = "not started"
    """The replica is new: its engine has to be started once before the replica takes calls."""
    STARTING = "starting"
    """The engine starts: it loads the weights from disk."""
    RESIDENT = "resident"
    """The engine is awake."""
    FALLING_ASLEEP = "falling asleep"
    """The engine frees the card's memory and keeps its weights in host RAM."""
    ASLEEP = "asleep"
    """The engine has freed the card's memory; its weights are in host RAM."""
    WAKING = "waking"
    """The engine copies its weights back to the card."""
    STOPPING = "stopping"
    """The engine ends."""
    STOPPED = "stopped"
    """The engine has ended and holds no memory. It starts from disk when it gets a turn."""
    FAILED = "failed"
    """The engine has failed and frees what it holds."""


class TurnState(StrEnum):
    """Whether a member may start calls; `scheduler` has the table of what leads from state to state."""

    OPEN = "open"
    """Every call may start."""
    CLOSING = "closing"
    """Calls that arrived up to the cutoff may start, or calls are still in flight."""
    CLOSED = "closed"
    """Nothing is in flight, and no call may start."""


@dataclass(frozen=True, slots=True)
class Member:
    """A replica in the plan. It takes turns with the other members of its slot."""

    name: str
    """A name, unique on the card. The name stays when another process takes the replica's place."""
    recipe_index: int = 0
    """Position of its model in the recipe. Where all else is equal, the lowest position comes first."""
    wake_s: float = 0.0
    """Predicted seconds of a wake, until one has been measured."""
    sleep_s: float = 0.0
    """Predicted seconds of falling asleep, until a sleep has been measured."""
    stops: bool = False
    """Whether its engine is stopped when another member's turn comes, rather than put to sleep."""
    start_s: float = 0.0
    """Predicted seconds of a start from disk, until one has been measured."""
    stop_s: float = 0.0
    """Predicted seconds of a stop, until one has been measured."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A part of a card's memory. One member at a time is awake in it, unless it keeps all loaded."""

    name: str
    """The slot's name."""
    members: tuple[Member, ...]
    """The replicas that take turns in the slot."""
    keeps_loaded: bool = False
    """Whether all members stay awake, because there is room for all. They still take turns."""


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """The calls of one member: how many there are, and the two times that the policy needs."""

    waiting: int = 0
    """Calls that have not started."""
    in_flight: int = 0
    """Calls that have started and not ended."""
    first_arrival_at: float = math.inf
    """When the oldest waiting call arrived; infinity if none waits."""
    first_due_at: float = math.inf
    """When the first waiting call runs out of patience; infinity if none ever does, as in a batch."""

    @property
    def has_any(self) -> bool:
        """Whether a call waits or is in flight."""
        return self.waiting + self.in_flight > 0

    def shift_times(self, by_s: float) -> "QueueCounts":
        """The same counts with `by_s` seconds added to both times.

        Clocks of two machines differ. So a sender subtracts its present time: then the times count from
        the sending. The receiver adds its own present time.
        """
        return replace(
            self,
            first_arrival_at=self.first_arrival_at + by_s,
            first_due_at=self.first_due_at + by_s,
        )


NO_CALLS = QueueCounts()
"""The counts of a member without calls."""
