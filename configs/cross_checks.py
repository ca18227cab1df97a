"""What a recipe says about itself in two places must agree.

Works on plain data and tolerates any shape, so that `slimmoa check` can report a misspelt key and
an unknown model in one go; shape is the schema's business.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from string import Formatter
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
    rules = (_unknown_models, _allowed, _answers, _clashing_names, _quorum, _deadlines, _prompt)
    return [problem for rule in rules for problem in rule(recipe)]


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _sequence(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _proposers(recipe: dict[Any, Any]) -> Iterator[tuple[int, int, dict[Any, Any]]]:
    for n, layer in enumerate(_sequence(recipe.get("layers"))):
        for m, proposer in enumerate(_sequence(_mapping(layer).get("proposers"))):
            yield n, m, _mapping(proposer)


def _uses(recipe: dict[Any, Any]) -> Iterator[tuple[Where, Any, Where, Any]]:
    """Where a model is named, its name, where its sampling stands, and that sampling."""
    for n, m, proposer in _proposers(recipe):
        place: Where = ("layers", n, "proposers", m)
        where, sampling = (*place, "sampling"), proposer.get("sampling")
        yield (*place, "model"), proposer.get("model"), where, sampling
    aggregator = _mapping(recipe.get("aggregator"))
    where, sampling = ("aggregator", "sampling"), aggregator.get("sampling")
    yield ("aggregator", "model"), aggregator.get("model"), where, sampling
    for n, name in enumerate(_sequence(aggregator.get("fallbacks"))):
        yield ("aggregator", "fallbacks", n), name, where, sampling


def _unknown_models(recipe: dict[Any, Any]) -> Iterator[Problem]:
    models = _mapping(recipe.get("models"))
    for where, name, _, _ in _uses(recipe):
        if isinstance(name, str) and name not in models:
            known = ", ".join(map(str, models)) or "none"
            yield Problem(where, f"{name!r} is not a model of this recipe (it has: {known})")


def _allowed(recipe: dict[Any, Any]) -> Iterator[Problem]:
    known = [recipe.get("name"), *_mapping(recipe.get("models"))]
    allowance = _mapping(_mapping(recipe.get("access")).get("allowance"))
    for n, name in enumerate(_sequence(allowance.get("models"))):
        if isinstance(name, str) and name not in known:
            message = f"{name!r} is not asked here (there are: {', '.join(map(str, known))})"
            yield Problem(("access", "allowance", "models", n), message)


def _answers(recipe: dict[Any, Any]) -> Iterator[Problem]:
    models = _mapping(recipe.get("models"))
    for _, name, where, sampling in _uses(recipe):
        model = _mapping(models.get(name)) if isinstance(name, str) else {}
        context, most = model.get("context_tokens"), _mapping(sampling).get("max_tokens")
        if isinstance(context, int) and isinstance(most, int) and most >= context:
            message = f"{most} tokens of answer leave a prompt no room in model {name!r}, which holds"
            yield Problem((*where, "max_tokens"), f"{message} {context} (context_tokens)")


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


def _quorum(recipe: dict[Any, Any]) -> Iterator[Problem]:
    quorum = _mapping(recipe.get("limits")).get("quorum")
    for n in range(len(_sequence(recipe.get("layers")))):
        samples = [p.get("samples", 1) for layer, _, p in _proposers(recipe) if layer == n]
        if not all(isinstance(s, int) for s in [quorum, *samples]):
            continue
        if quorum > sum(samples):
            message = f"{quorum} proposals can never come from layer {n + 1}, which gives"
            yield Problem(("limits", "quorum"), f"{message} {sum(samples)}")


def _deadlines(recipe: dict[Any, Any]) -> Iterator[Problem]:
    limits, layers = _mapping(recipe.get("limits")), len(_sequence(recipe.get("layers")))
    whole, part = limits.get("deadline_s"), limits.get("layer_deadline_s")
    if isinstance(whole, int | float) and isinstance(part, int | float) and part * layers >= whole:
        message = f"{layers} layer(s) of {part:g} s leave the aggregator nothing of"
        yield Problem(("limits", "layer_deadline_s"), f"{message} deadline_s, {whole:g} s")


def _prompt(recipe: dict[Any, Any]) -> Iterator[Problem]:
    references = _mapping(recipe.get("references"))
    if isinstance(references.get("prompt_file"), str):
        message = "is read only from a recipe file; here, give the text itself as prompt"
        yield Problem(("references", "prompt_file"), message)
    item = references.get("item")
    if not isinstance(item, str):
        return
    try:
        parts = [part[1:] for part in Formatter().parse(item) if part[1] is not None]
    except ValueError as error:
        yield Problem(("references", "item"), f"not a form: {error}")
        return
    # Formats reach into attributes and pad to any width, so only the bare names may stand here.
    if any(part not in (("number", "", None), ("text", "", None)) for part in parts):
        yield Problem(("references", "item"), "only {number} and {text} may stand in braces")
    if all(name != "text" for name, _, _ in parts):
        yield Problem(("references", "item"), "{text} is missing, so no reference would be read")
