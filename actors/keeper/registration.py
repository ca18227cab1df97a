"""A replica's place on a card, and how it comes to one: by joining, before its engine is made."""

import asyncio
import math
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from actors.engine import Share
from actors.keeper.protocol import Keeper, wait_for_answer
from cluster.residency.messages import Snapshot
from cluster.residency.state import State
from configs.errors import EngineUnavailable

CLAIM_S = 30.0
"""A replica whose seat another one holds waits so long for it: the other may be on its way out, which
Serve lets last 20 s. Then Serve starts it again, on another node perhaps."""
CLAIM_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class Assignment:
    """A replica's place on a card. member: its name there; keeper: the card's; share: what it may
    use of it; patience_s: how long its calls wait before they end another's turn; gpus: numbers of
    the GPUs that the card is made of, None on a CPU; who: under which it was claimed."""

    member: str
    keeper: Keeper
    share: Share
    patience_s: float = math.inf
    gpus: tuple[int, ...] | None = None
    who: str | None = None


async def claim_assignment(model: str, seats: Sequence[Assignment], replica: Any) -> Assignment:
    """The first of these seats that is free, taken. replica: what its keeper watches.

    A keeper lets no two replicas be the same member, so asking all of them in order is enough. One that
    does not answer is asked again before the next: it may have given the seat, and a seat that is held
    by somebody who sits elsewhere would stop its card.

    Raises:
        EngineUnavailable: there is none, or all are held by others for too long.
    """
    who, refused = uuid.uuid4().hex, "no seat of it is planned here"
    left = deque(seats)
    try:
        async with asyncio.timeout(CLAIM_S):
            while left:
                try:
                    joining = left[0].keeper.join(left[0].member, who, Snapshot(State.STOPPED), replica)
                    if await wait_for_answer(joining) is not None:
                        return replace(left[0], who=who)
                except (ConnectionError, TimeoutError) as lost:
                    refused = f"the keeper of its card is out of reach: {lost or 'no answer'}"
                else:
                    refused = "all of its seats here are taken"
                    left.rotate(-1)
                    if left[0] is not seats[0]:
                        continue
                await asyncio.sleep(CLAIM_EVERY_S)
    except TimeoutError:
        pass
    raise EngineUnavailable(f"no card of this node takes model {model!r}: {refused}", model=model)
