"""GET /v1/state: what the models and their cards are doing at this moment, for pages and operators."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from fastapi import Request
from pydantic import ConfigDict

from actors.keeper.card_report import CardReport
from configs.schema import Recipe
from serve_app.access.auth import KEY
from serve_app.error_schema import Described
from serve_app.http.served_models import ServedModels

FRESH_S = 0.5
"""Seconds for which an answer is given again. So ten pages cost the keepers no more than one page."""

Watch = Callable[[], Awaitable[Sequence[CardReport]]]
"""Asks the keepers of all cards for their reports."""


class MemberState(Described):
    """One replica of a model, and what its engine is doing."""

    model_config = ConfigDict(use_attribute_docstrings=True, from_attributes=True)

    name: str
    """The model's name, a slash, and the number of the replica."""
    slot: str
    """The slot of the card. The members of a slot take turns."""
    state: str
    """What the engine is doing: `resident` (awake), `asleep`, `waking`, `falling asleep`, `starting`,
    `stopping`, `stopped`, `failed`, `not started`, or `absent` (no replica)."""
    turn: Literal["open", "closing", "closed"]
    """Whether the replica may start calls."""
    in_flight: int
    """Calls that the engine works on."""
    waiting: int
    """Calls that wait for the turn of the model, or for room in its engine."""
    oldest_wait_s: float
    """Seconds for which the oldest of these calls has waited; 0 if none waits."""
    last_step_s: float | None
    """Seconds that the engine's last start, wake, sleep or stop took; null before the first."""
    failure: str
    """Why the engine failed the last time; empty if it never did."""
    awake_bytes: int
    """Bytes of the card that the engine holds by the plan while it is awake."""
    asleep_bytes: int
    """Bytes of the card that the engine holds by the plan while it sleeps."""
    orders: dict[str, int]
    """How many orders of each kind (`start`, `wake`, `sleep`, `open`, ...) the member was given."""
    step_seconds: dict[str, float]
    """Seconds that all steps of the engine took, by the state in which they ended."""


class CardState(Described):
    """One card: one GPU, several joined GPUs, or the CPU of a node."""

    model_config = ConfigDict(use_attribute_docstrings=True, from_attributes=True)

    node: str
    """Ray's ID of the node."""
    gpus: list[int] | None
    """Numbers of the GPUs, as `nvidia-smi` shows them; null for the CPU of the node."""
    name: str
    """The name of the card's model."""
    total_bytes: int
    """Bytes of memory that the card has; 0 if nobody knows."""
    members: list[MemberState]
    """The replicas on the card, slot by slot."""


class MixtureState(Described):
    """The recipe, as far as a page needs it to show an answer while it is written."""

    name: str
    """The name of the mixture."""
    layers: list[list[str]]
    """The model of each proposal, by layer and place."""
    aggregators: list[str]
    """The models that may write the answer, in the order in which they are tried."""
    quorum: int
    """Proposals that a layer needs."""
    grace_s: float | None
    """Seconds that the others get after the quorum is met; null for no such limit."""
    layer_deadline_s: float
    """Seconds that a layer has."""
    deadline_s: float
    """Seconds that an answer has."""


class ServerState(Described):
    """What the models and their cards are doing at this moment."""

    mixture: MixtureState
    """The mixture that is served."""
    models: list[str]
    """The names that the key may ask for: the mixture and its models."""
    cards: list[CardState]
    """The cards on which models run. Models at other servers have none."""
    at: float
    """When the cards were asked: seconds since 1970."""


class StateEndpoint:
    """Answers `/v1/state`.

    Args:
        recipe: what is served.
        served: the names that a key may ask for.
        watch: asks the keepers; None where there are none.
    """

    def __init__(self, recipe: Recipe, served: ServedModels, watch: Watch | None) -> None:
        self._served = served
        self._watch = watch
        limits = recipe.limits
        self._mixture = MixtureState(
            name=recipe.name,
            layers=[
                [p.model for p in layer.proposers for _ in range(p.samples)] for layer in recipe.layers
            ],
            aggregators=list(recipe.aggregators),
            quorum=limits.quorum,
            grace_s=limits.grace_s,
            layer_deadline_s=limits.layer_deadline_s,
            deadline_s=limits.deadline_s,
        )
        self._asking: asyncio.Task[tuple[float, list[CardState]]] | None = None
        self._until = 0.0

    async def state(self, http: Request) -> ServerState:
        """The state of the models and their cards. The answer is up to half a second old."""
        at, cards = await self.cards()
        names = self._served.names(http.scope[KEY])
        return ServerState(mixture=self._mixture, models=names, cards=cards, at=at)

    async def cards(self) -> tuple[float, list[CardState]]:
        """When the keepers were asked, and what they said. Those who ask at the same time share the
        question."""
        loop = asyncio.get_running_loop()
        asking = self._asking
        if asking is None or (asking.done() and loop.time() >= self._until):
            asking = self._asking = loop.create_task(self._ask())
        return await asyncio.shield(asking)

    async def _ask(self) -> tuple[float, list[CardState]]:
        at = time.time()
        reports = await self._watch() if self._watch is not None else ()
        self._until = asyncio.get_running_loop().time() + FRESH_S
        return at, [CardState.model_validate(report) for report in reports]
