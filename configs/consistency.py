"""What a recipe says about itself in two places must agree.

Works on plain data and tolerates any shape, so that `slimmoa check` can report a misspelt key and
an unknown model in one go; shape is the schema's business.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Where = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a recipe, the path of keys to it, and its line if it has one."""

    where: Where
    message: str
    line: int | None = None

    def __str__(self) -> str:
        path = ".".join(map(str, self.where))
        return f"{path}: {self.message}" if path else self.message


def inconsistencies(recipe: Any) -> list[Problem]:
    """All contradictions of a recipe given as plain data (as read from YAML or dumped)."""
    if not isinstance(recipe, dict):
        return []
    return [*_unknown_models(recipe), *_clashing_names(recipe), *_limits(recipe), *_prompt(recipe)]


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _sequence(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _proposers(recipe: dict[Any, Any]) -> Iterator[tuple[int, int, dict[Any, Any]]]:
    for n, layer in enumerate(_sequence(recipe.get("layers"))):
        for m, proposer in enumerate(_sequence(_mapping(layer).get("proposers"))):
            yield n, m, _mapping(proposer)


def _unknown_models(recipe: dict[Any, Any]) -> Iterator[Problem]:
    models = _mapping(recipe.get("models"))
    aggregator = _mapping(recipe.get("aggregator"))
    uses: list[tuple[Where, Any]] = [
        (("layers", n, "proposers", m, "model"), proposer.get("model"))
        for n, m, proposer in _proposers(recipe)
    ]
    uses.append((("aggregator", "model"), aggregator.get("model")))
    uses += [
        (("aggregator", "fallbacks", n), name)
        for n, name in enumerate(_sequence(aggregator.get("fallbacks")))
    ]
    for where, name in uses:
        if isinstance(name, str) and name not in models:
            known = ", ".join(map(str, models)) or "none"
            yield Problem(where, f"{name!r} is not a model of this recipe (it has: {known})")


def _clashing_names(recipe: dict[Any, Any]) -> Iterator[Problem]:
    name = recipe.get("name")
    if isinstance(name, str) and name in _mapping(recipe.get("models")):
        yield Problem(("name",), f"{name!r} is also the name of a model; the API needs two names")
    aggregator = _mapping(recipe.get("aggregator"))
    seen = [aggregator.get("model")]
    for n, fallback in enumerate(_sequence(aggregator.get("fallbacks"))):
        if fallback in seen:
            yield Problem(("aggregator", "fallbacks", n), f"{fallback!r} is already an aggregator")
        seen.append(fallback)


def _limits(recipe: dict[Any, Any]) -> Iterator[Problem]:
    limits = _mapping(recipe.get("limits"))
    layers = _sequence(recipe.get("layers"))
    quorum = limits.get("quorum")
    for n in range(len(layers)):
        samples = [p.get("samples", 1) for layer, _, p in _proposers(recipe) if layer == n]
        if not all(isinstance(s, int) for s in [quorum, *samples]) or quorum is None:
            continue
        if quorum > sum(samples):
            message = f"{quorum} proposals can never come from layer {n + 1}, which gives"
            yield Problem(("limits", "quorum"), f"{message} {sum(samples)}")
    whole, part = limits.get("deadline_s"), limits.get("layer_deadline_s")
    if not (isinstance(whole, int | float) and isinstance(part, int | float)):
        return
    if part * len(layers) >= whole:
        message = f"{len(layers)} layer(s) of {part:g} s leave the aggregator nothing of"
        yield Problem(("limits", "layer_deadline_s"), f"{message} deadline_s, {whole:g} s")


def _prompt(recipe: dict[Any, Any]) -> Iterator[Problem]:
    item = _mapping(recipe.get("references")).get("item")
    if not isinstance(item, str):
        return
    try:
        text = item.format(number=1, text="\0")
    except (KeyError, IndexError, ValueError) as error:
        yield Problem(("references", "item"), f"only {{number}} and {{text}} may stand here: {error}")
        return
    if "\0" not in text:
        yield Problem(("references", "item"), "{text} is missing, so no reference would be read")
