"""How a replica gets its assignment: it joins the keeper of a card before its engine is created."""

import asyncio
import math
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from actors.engine import Share
from actors.keeper.protocol import CardTaken, Keeper, wait_for_answer
from cluster.cards.memory import CardMemory
from cluster.residency.messages import Snapshot
from cluster.residency.state import State
from configs.errors import EngineUnavailable

CLAIM_S = 30.0
"""Seconds that a replica tries to claim an assignment: another replica may still hold it while shutting
down, for which Serve allows 20 s. If no claim succeeds, Serve starts the replica again, perhaps on
another node."""
CLAIM_EVERY_S = 0.25
"""Seconds to wait after all assignments were refused, or after a keeper did not answer."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A replica's part of a card: its name there, the card's keeper, and its share."""

    member: str
    """The replica's name among the members of the card."""
    keeper: Keeper
    share: Share
    patience_s: float = math.inf
    """Seconds that a call waits before it may end another model's turn; infinity for never."""
    gpus: tuple[int, ...] | None = None
    """Numbers of the GPUs that form the card; None on a CPU."""
    memory: CardMemory | None = None
    """What the engine takes of these GPUs; None on a CPU."""
    claimant_id: str | None = None
    """The identity with which the replica joined the keeper; None before a replica has joined."""


async def claim_assignment(model: str, assignments: Sequence[Assignment], replica: Any) -> Assignment:
    """Claim the first of these assignments that no other replica holds.

    A keeper lets no two replicas be the same member, so it is enough to ask for each assignment in
    order. If a keeper does not answer, the same keeper is asked again before the next assignment is
    tried: it may already have granted its assignment. If the replica then took another one, the first
    assignment would stay blocked, and so would its card.

    While replicas of another plan have the card, the claim waits and is not given up: until the calls
    of these replicas have ended, or until the keeper ends the replicas (`handover.py`).

    Args:
        model: the model's name, for the error.
        assignments: all assignments of the model on this node.
        replica: the handle of this replica's actor, which the keeper watches.

    Raises:
        EngineUnavailable: there is no assignment, or none could be claimed within `CLAIM_S`.
    """
    claimant_id = uuid.uuid4().hex
    refused = "no assignment of it is planned here"
    left = deque(assignments)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CLAIM_S) as limit:
            while left:
                wanted = left[0]
                new = Snapshot(State.NOT_STARTED)
                try:
                    joining = wanted.keeper.join(wanted.member, claimant_id, new, replica)
                    if await wait_for_answer(joining) is not None:
                        return replace(wanted, claimant_id=claimant_id)
                except CardTaken:
                    limit.reschedule(loop.time() + CLAIM_S)
                except (ConnectionError, TimeoutError) as lost:
                    refused = f"the keeper of its card is out of reach: {lost or 'no answer'}"
                else:
                    refused = "all of its assignments here are taken"
                    left.rotate(-1)
                    if left[0] is not assignments[0]:
                        continue
                await asyncio.sleep(CLAIM_EVERY_S)
    except TimeoutError:
        pass
    raise EngineUnavailable(f"no card of this node takes model {model!r}: {refused}", model=model)
