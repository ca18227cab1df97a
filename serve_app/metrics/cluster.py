"""What models and cards are doing, as metrics: asked for when Prometheus scrapes.

`ClusterWatch` asks the replicas of all models and the keepers of all cards side by side. What does not
answer in time is left out, and `slimmoa_up` says so. Values of an earlier scrape are never shown again,
because an operator would take them for the present ones.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from prometheus_client.metrics_core import Metric

from actors.keeper.card_report import CardReport, MemberReport
from actors.keeper.kept_card import WITHOUT_MEMORY, card_of
from actors.replica import ReplicaStats
from cluster.residency.messages import Verb
from cluster.residency.state import State, TurnState
from serve_app.metrics import names
from serve_app.metrics.named import Named

ANSWER_S = 3.0
"""Longest wait for the answers of replicas and keepers, in seconds. A replica or keeper that is well
answers within milliseconds; Prometheus gives a scrape 10 s by default."""
FRESH_S = 1.0
"""Seconds for which answers are used again, so that many scrapers cost no more than one."""
AWAKE_STATES = (State.RESIDENT, State.WAKING, State.STARTING, State.FALLING_ASLEEP, State.STOPPING)
"""States in which an engine holds, or is about to hold or free, what it holds awake."""
SLEEP_STATES = {
    "awake": State.RESIDENT,
    "weights_offloaded": State.ASLEEP,
    "discard_all": State.STOPPED,
}
"""vLLM's states of sleep, and ours."""
ENDS = (State.RESIDENT, State.ASLEEP, State.STOPPED)
"""The states in which a step of an engine ends."""
NODE_CHARACTERS = 8
"""Characters of Ray's ID of a node that stand in the name of a card."""

Answer = TypeVar("Answer")
AskStats = Callable[[str], Awaitable[Sequence[ReplicaStats | None]]]
"""Asks all replicas of a model for their counters; None for a replica that does not answer."""
AskCards = Callable[[], Awaitable[Mapping[str, CardReport | None]]]
"""Asks all keepers for their reports, by the name of the keeper's actor; None for a keeper that does
not answer."""


def card_name(actor_name: str) -> str:
    """The name of a keeper's card in labels: the beginning of its node's ID, and `cpu` or the numbers
    of its GPUs."""
    node, gpus = card_of(actor_name)
    return f"{node[:NODE_CHARACTERS]}:{'cpu' if gpus is None else '+'.join(map(str, gpus))}"


def by_card(reports: Mapping[str, CardReport | None]) -> dict[str, CardReport | None]:
    """The reports by the name of the card. While a new plan takes over a card, the card has two
    keepers; the one counts whose members have replicas that are at work."""
    found: dict[str, CardReport | None] = {}
    for actor_name, report in reports.items():
        card = card_name(actor_name)
        if _at_work(report) >= _at_work(found.get(card)):
            found[card] = report
    return found


def _at_work(report: CardReport | None) -> int:
    members = () if report is None else report.members
    return sum(member.state not in WITHOUT_MEMORY for member in members)


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What replicas and keepers said."""

    stats: Mapping[str, Sequence[ReplicaStats | None]] = field(default_factory=dict)
    """The counters of each model's replicas, by the model's name."""
    cards: Mapping[str, CardReport | None] = field(default_factory=dict)
    """The report of each card, by the card's name."""


class ClusterWatch:
    """Asks replicas and keepers, at most once in FRESH_S.

    Args:
        models: names of the models.
        ask_stats: asks the replicas of a model; None where no replica can be asked.
        ask_cards: asks the keepers; None where there are none.
    """

    def __init__(
        self, models: Iterable[str], ask_stats: AskStats | None, ask_cards: AskCards | None
    ) -> None:
        self._models = tuple(models) if ask_stats is not None else ()
        self._ask_stats = ask_stats
        self._ask_cards = ask_cards
        self._cards: tuple[str, ...] = ()
        """The names of the keepers that there were the last time."""
        self._asking: asyncio.Task[ClusterState] | None = None
        self._until = 0.0

    async def state(self) -> ClusterState:
        """What replicas and keepers say now. Scrapes at the same time share the question."""
        loop = asyncio.get_running_loop()
        asking = self._asking
        if asking is None or (asking.done() and loop.time() >= self._until):
            asking = self._asking = loop.create_task(self._ask())
        return await asyncio.shield(asking)

    async def _ask(self) -> ClusterState:
        stats, cards = await asyncio.gather(
            asyncio.gather(*(self._ask_model(model) for model in self._models)), self._ask_all_cards()
        )
        self._until = asyncio.get_running_loop().time() + FRESH_S
        return ClusterState(dict(zip(self._models, stats, strict=True)), cards)

    async def _ask_model(self, model: str) -> Sequence[ReplicaStats | None]:
        assert self._ask_stats is not None
        return await in_time(self._ask_stats(model)) or ()

    async def _ask_all_cards(self) -> Mapping[str, CardReport | None]:
        if self._ask_cards is None:
            return {}
        cards = await in_time(self._ask_cards())
        if cards is None:
            return by_card(dict.fromkeys(self._cards))
        self._cards = tuple(cards)
        return by_card(cards)


async def in_time(asking: Awaitable[Answer]) -> Answer | None:
    """The answer, or None if there is none within ANSWER_S or the question fails."""
    try:
        async with asyncio.timeout(ANSWER_S):
            return await asking
    except Exception:  # whatever fails, the other numbers are still worth a scrape
        return None


def cluster_families(state: ClusterState) -> list[Metric]:
    """The metrics of models and cards."""
    found = _Families()
    for model, stats in state.stats.items():
        _add_model(found, model, [each for each in stats if each is not None])
    for card, report in state.cards.items():
        found.add(names.UP, 0.0 if report is None else 1.0, "card", card)
        if report is not None:
            found.add(names.CARD_BYTES, report.total_bytes, card)
            for member in report.members:
                _add_member(found, card, member)
    return list(found)


class _Families:
    """Families of samples, each made with its first sample."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families.values())

    def add(self, named: Named, value: float, *labels: str) -> None:
        family = self._families.get(named.name)
        if family is None:
            family = self._families[named.name] = named.family()
        family.add_sample(named.name, dict(zip(named.labels, labels, strict=True)), value)


def _add_model(found: _Families, model: str, stats: Sequence[ReplicaStats]) -> None:
    found.add(names.UP, 1.0 if stats else 0.0, "model", model)
    found.add(names.REPLICAS, len(stats), model)
    if stats:
        found.add(names.RUNNING, sum(each.in_flight for each in stats), model)
        found.add(names.WAITING, sum(each.waiting for each in stats), model)
        found.add(names.OLDEST_WAIT, max(each.oldest_wait_s for each in stats), model)


def _add_member(found: _Families, card: str, member: MemberReport) -> None:
    model, _, number = member.name.rpartition("/")
    state = member.state
    held = member.awake_bytes if state in AWAKE_STATES else 0
    if state is State.ASLEEP:
        held = member.asleep_bytes
    by_time = {"awake": member.awake_bytes, "asleep": member.asleep_bytes, "now": held}
    for when, size in by_time.items():
        found.add(names.MEMBER_BYTES, size, card, model, number, when)
    for each in State:
        found.add(names.MEMBER_STATE, float(each is state), card, model, number, str(each))
    for name, same in SLEEP_STATES.items():
        found.add(names.SLEEP_STATE, float(same is state), card, model, number, name)
    is_open = float(member.turn is TurnState.OPEN)
    found.add(names.MEMBER_TURN, is_open, card, model, number)
    for order in Verb:
        found.add(names.ORDERS, member.orders.get(order, 0), card, model, number, str(order))
    for ended in ENDS:
        seconds = member.step_seconds.get(ended, 0.0)
        found.add(names.STEP_SECONDS, seconds, card, model, number, str(ended))
