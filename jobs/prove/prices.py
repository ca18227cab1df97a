"""What answers have cost: calls, tokens and seconds, kept in the run's folder beside the store.

The store knows the calls that an answer is made of. A price has the short calls of a pick as well. Each
line of the file is one answer; the last line for an answer counts.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Self

from jobs.answer_events import AnswerEvents
from serve_app.mixture.events import Call

FILE = "prices.jsonl"


@dataclass(frozen=True, slots=True)
class Price:
    """What one answer has cost, or the mean of several answers."""

    calls: float
    read: float
    """Tokens that the models read."""
    written: float
    """Tokens that the models wrote."""
    shortest_s: float
    """Seconds of the engines, if the calls of a layer run side by side without slowing each other."""
    longest_s: float
    """Seconds of the engines, if all calls run one after another."""

    @classmethod
    def of(cls, events: AnswerEvents) -> Self:
        """The price of an answer whose events these are."""
        calls = events.summary.calls
        layers: dict[int, float] = {}
        for (layer, _), call in events.proposal_calls.items():
            layers[layer] = max(layers.get(layer, 0.0), call.engine_s)
        last = events.summary.answered.call
        known = [*events.proposal_calls.values(), *([] if last is None else [last])]
        return cls(
            calls=len(calls),
            read=sum(call.prompt_tokens for call in calls),
            written=sum(call.completion_tokens for call in calls),
            shortest_s=sum(layers.values())
            + max((call.engine_s for call in _without(calls, known)), default=0.0)
            + (0.0 if last is None else last.engine_s),
            longest_s=sum(call.engine_s for call in calls),
        )

    @classmethod
    def mean(cls, prices: Sequence["Price"]) -> Self:
        """The mean of some prices; there must be at least one."""
        return cls(**{name: fmean(getattr(p, name) for p in prices) for name in cls.__slots__})


def _without(calls: Iterable[Call], known: Sequence[Call]) -> list[Call]:
    """The calls that are not among the known ones. Equal calls are told apart by their number."""
    rest = list(calls)
    for call in known:
        if call in rest:
            rest.remove(call)
    return rest


def keep_price(folder: Path, name: str, row: int, price: Price) -> None:
    """Append the price of an answer."""
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"generator": name, "row": row} | asdict(price)) + "\n")


def read_prices(folder: Path) -> Mapping[str, dict[int, Price]]:
    """The prices of all answers, by generator and row. A line that a stop has cut is left out."""
    found: dict[str, dict[int, Price]] = {}
    path = folder / FILE
    if not path.exists():
        return found
    for line in path.read_text("utf-8").splitlines():
        try:
            fields = json.loads(line)
            name, row = fields.pop("generator"), fields.pop("row")
            found.setdefault(name, {})[row] = Price(**fields)
        except (ValueError, TypeError, KeyError):
            continue
    return found
