"""GET /v1/state: what the models and their cards are doing at this moment, for pages and operators."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Literal

from fastapi import Request
from pydantic import ConfigDict

from actors.keeper.card_report import CardReport
from configs.errors import RequestError
from configs.schema import Method, Recipe
from serve_app.access.admission import AdmissionControl
from serve_app.access.api_keys import Key
from serve_app.access.auth import KEY, Authenticator
from serve_app.error_schema import Described
from serve_app.http.fusion import methods_of
from serve_app.http.health import READY_S, ModelStats
from serve_app.http.served_models import ServedModels
from serve_app.recent import Recent
from serve_app.recent_report import Rates, RecentAnswer, RecentRefusal

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
    since_s: float
    """Seconds for which the engine has been in this state."""
    expected_s: float | None
    """Seconds that the step takes in which the engine is now, as measured the last time, or else as
    predicted; null if the engine is in no step."""
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
    methods: list[Method]
    """The methods that `moa.fuse.method` may name. The first is the recipe's own."""
    quorum: int
    """Proposals that a layer needs."""
    grace_s: float | None
    """Seconds that the others get after the quorum is met; null for no such limit."""
    layer_deadline_s: float
    """Seconds that a layer has."""
    deadline_s: float
    """Seconds that an answer has."""


class ModelWithoutCard(Described):
    """A model that computes on no card of this server, such as a model on another server."""

    name: str
    """The model's name."""
    engine: str
    """The model's engine."""
    is_up: bool
    """Whether a replica of the model answers."""
    why: str
    """Why not; empty if a replica answers."""
    in_flight: int
    """Calls that one replica of the model works on."""
    waiting: int
    """Calls that wait at this replica."""


class ModelCapacity(Described):
    """The calls of one model that this ingress has admitted, and how many it may admit."""

    name: str
    """The model's name."""
    taken: int
    """Calls that answers in work have reserved."""
    capacity: int
    """Calls that may be reserved at a time: those that replicas run, and those that may wait. A request
    that finds no room is refused (429)."""


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
    without_card: list[ModelWithoutCard]
    """The models that are on none of these cards."""
    in_work: int
    """Answers in work. This field and all below are those of the ingress that answers."""
    oldest_s: float
    """Seconds for which the oldest of them has been in work; 0 if there is none."""
    capacity: list[ModelCapacity]
    """The room that each model has for calls."""
    rates: Rates
    """What has happened in the last minute."""
    answers: list[RecentAnswer]
    """The last answers, the latest first: those of the key that asks, or of all keys if the key is an
    operator's, or if there is only one key."""
    refusals: list[RecentRefusal]
    """The last refused requests, in the same way."""


class StateEndpoint:
    """Answers `/v1/state`.

    Args:
        recipe: what is served.
        served: the names that a key may ask for.
        watch: asks the keepers; None where there are none.
        models: the recipe's models, which can be asked for their counters.
        admission: knows how many calls are admitted.
        authenticator: knows whether there are several keys.
        recent: what was answered and refused lately.
    """

    def __init__(
        self,
        recipe: Recipe,
        served: ServedModels,
        watch: Watch | None,
        models: ModelStats,
        admission: AdmissionControl,
        authenticator: Authenticator,
        recent: Recent,
    ) -> None:
        self._served = served
        self._watch = watch
        self._models = models
        self._admission = admission
        self._authenticator = authenticator
        self._recent = recent
        limits = recipe.limits
        self._engines = {name: model.engine for name, model in recipe.models.items()}
        self._mixture = MixtureState(
            name=recipe.name,
            layers=[
                [p.model for p in layer.proposers for _ in range(p.samples)] for layer in recipe.layers
            ],
            aggregators=list(recipe.aggregators),
            methods=methods_of(recipe),
            quorum=limits.quorum,
            grace_s=limits.grace_s,
            layer_deadline_s=limits.layer_deadline_s,
            deadline_s=limits.deadline_s,
        )
        self._asking: asyncio.Task[_Asked] | None = None
        self._until = 0.0

    async def state(self, http: Request) -> ServerState:
        """The state of the models and their cards, and what was answered and refused lately. What is
        said of cards and models is up to half a second old."""
        key: Key = http.scope[KEY]
        asked = await self._ask_once()
        in_work, oldest_s = self._recent.in_work()
        now = asyncio.get_running_loop().time()
        sees_all = key.is_operator or not self._authenticator.has_several_keys(now)
        return ServerState(
            mixture=self._mixture,
            models=self._served.names(key),
            cards=asked.cards,
            at=asked.at,
            without_card=asked.without_card,
            in_work=in_work,
            oldest_s=oldest_s,
            capacity=[
                ModelCapacity(name=name, taken=taken, capacity=capacity)
                for name, (taken, capacity) in self._admission.room().items()
            ],
            rates=self._recent.rates(),
            answers=[a for a in reversed(self._recent.answers) if sees_all or a.key == key.name],
            refusals=[r for r in reversed(self._recent.refusals) if sees_all or r.key == key.name],
        )

    async def cards(self) -> tuple[float, list[CardState]]:
        """When the keepers were asked, and what they said. Those who ask at the same time share the
        question."""
        asked = await self._ask_once()
        return asked.at, asked.cards

    async def _ask_once(self) -> "_Asked":
        loop = asyncio.get_running_loop()
        asking = self._asking
        if asking is None or (asking.done() and loop.time() >= self._until):
            # In a context of its own: the answer is for several requests.
            asking = self._asking = loop.create_task(self._ask(), context=Context())
        return await asyncio.shield(asking)

    async def _ask(self) -> "_Asked":
        at = time.time()
        reports = await self._watch() if self._watch is not None else ()
        placed = {member.name.rpartition("/")[0] for card in reports for member in card.members}
        left = [name for name in self._engines if name not in placed]
        without_card = list(await asyncio.gather(*map(self._model, left)))
        self._until = asyncio.get_running_loop().time() + FRESH_S
        return _Asked(at, [CardState.model_validate(report) for report in reports], without_card)

    async def _model(self, name: str) -> ModelWithoutCard:
        """What one replica of a model says."""
        in_flight = waiting = 0
        why = ""
        try:
            async with asyncio.timeout(READY_S):
                stats = await self._models.stats(name)
            in_flight, waiting = stats.in_flight, stats.waiting
        except TimeoutError:
            why = "its replica does not answer"
        except RequestError as error:
            why = error.message
        return ModelWithoutCard(
            name=name,
            engine=self._engines[name],
            is_up=not why,
            why=why,
            in_flight=in_flight,
            waiting=waiting,
        )


@dataclass(frozen=True, slots=True)
class _Asked:
    """What keepers and models have said."""

    at: float
    cards: list[CardState]
    without_card: list[ModelWithoutCard]
