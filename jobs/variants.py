"""Variants of a mixture, as ablations compare them: pure changes of a recipe, each with a name.

A variant changes who proposes or who aggregates and nothing else: prompts, limits and, wherever a model
stays, its sampling are those of the base. So most of a variant's calls are calls of the base.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from configs.errors import UserError
from configs.schema import Layer, Proposer, Recipe


class VariantError(UserError):
    """A recipe has no such variant; the message names the variant and says why."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One generator to be: a mixture by its recipe, or one of the recipe's models alone.

    name: of the generator; recipe: whole; model: None for a mixture.
    """

    name: str
    recipe: Recipe
    model: str | None = None


def mixture(recipe: Recipe) -> Variant:
    """The base itself."""
    return Variant(recipe.name, recipe)


def alone(recipe: Recipe, model: str) -> Variant:
    """One of the recipe's models, asked directly.

    Raises:
        VariantError: the recipe has no such model.
    """
    if model not in recipe.models:
        raise VariantError(f"{model!r} alone: {_not_among(model, recipe.models)}")
    return Variant(model, recipe, model)


def without(recipe: Recipe, model: str) -> Variant:
    """The mixture without a proposer: every place of that model in every layer goes, and a quorum
    that the rest could not reach sinks to what it can.

    Raises:
        VariantError: the model proposes nowhere, or a layer would be empty.
    """
    name = f"{recipe.name}-without-{model}"
    if model not in proposing(recipe):
        raise VariantError(f"{name!r}: {_not_among(model, proposing(recipe), 'proposers')}")
    layers = []
    for number, layer in enumerate(recipe.layers, 1):
        rest = [proposer for proposer in layer.proposers if proposer.model != model]
        if not rest:
            raise VariantError(f"{name!r}: layer {number} has no other proposer than {model!r}")
        layers.append(rest)
    quorum = min([recipe.limits.quorum, *(sum(p.samples for p in rest) for rest in layers)])
    limits = recipe.limits.model_dump() | {"quorum": quorum}
    return _changed(recipe, name, layers=_dumped(layers), limits=limits)


def with_also(recipe: Recipe, model: str) -> Variant:
    """The mixture with one more proposer, at the end of every layer, sampled as the layer's first.

    Raises:
        VariantError: the recipe has no such model, or its context is too small for the sampling.
    """
    layers = [[*layer.proposers, _like_first(layer, model)] for layer in recipe.layers]
    return _changed(recipe, f"{recipe.name}-with-{model}", layers=_dumped(layers))


def aggregated_by(recipe: Recipe, model: str) -> Variant:
    """The mixture with another aggregator, sampled as the base's. It has no fallbacks: an answer that
    another model wrote would be counted as this one's.

    Raises:
        VariantError: the recipe has no such model, or its context is too small for the sampling.
    """
    aggregator = recipe.aggregator.model_dump() | {"model": model, "fallbacks": ()}
    return _changed(recipe, f"{recipe.name}-by-{model}", aggregator=aggregator)


def replaced(recipe: Recipe, models: Mapping[str, str], label: str | None = None) -> Variant:
    """The mixture with proposers replaced, in every layer; the aggregator stays.

    models: the new one by the old one; label: what the variant's name ends with, by default all
    replacements.

    Raises:
        VariantError: an old model proposes nowhere, or a new one is unknown or has too small a context.
    """
    ending = label or "-".join(f"{new}-for-{old}" for old, new in models.items())
    name = f"{recipe.name}-{ending}"
    for old in models:
        if old not in proposing(recipe):
            raise VariantError(f"{name!r}: {_not_among(old, proposing(recipe), 'proposers')}")
    layers = [
        [p.model_copy(update={"model": models.get(p.model, p.model)}) for p in layer.proposers]
        for layer in recipe.layers
    ]
    return _changed(recipe, name, layers=_dumped(layers))


def self_moa(recipe: Recipe, model: str) -> Variant:
    """Self-MoA (Li et al., 2025) on equal calls: each layer has as many samples of this one model as
    the base has places there; the aggregator stays.

    Raises:
        VariantError: the recipe has no such model, its context is too small, or a layer has more
            places than one proposer may have samples.
    """
    layers = [[_sampled(layer, model)] for layer in recipe.layers]
    return _changed(recipe, f"{recipe.name}-self-{model}", layers=_dumped(layers))


def proposing(recipe: Recipe) -> tuple[str, ...]:
    """The models that propose, each once, in the order of their first places."""
    return tuple(dict.fromkeys(proposer.model for proposer in recipe.proposers()))


def _like_first(layer: Layer, model: str) -> Proposer:
    # A seed is a proposer's own: with the first one's, the same model would only copy it.
    sampling = layer.proposers[0].sampling.model_copy(update={"seed": None})
    return Proposer(model=model, sampling=sampling)


def _sampled(layer: Layer, model: str) -> Proposer:
    own = (proposer for proposer in layer.proposers if proposer.model == model)
    base = next(own, None) or _like_first(layer, model)
    return base.model_copy(update={"samples": layer.samples})


def _dumped(layers: Sequence[Sequence[Proposer]]) -> list[dict[str, Any]]:
    return [{"proposers": [proposer.model_dump() for proposer in layer]} for layer in layers]


def _changed(recipe: Recipe, name: str, **parts: Any) -> Variant:
    """The recipe under another name with these parts, checked as one that is read from a file."""
    try:
        return Variant(name, Recipe.model_validate(recipe.model_dump() | {"name": name} | parts))
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}".lstrip(": ") for e in error.errors())
        raise VariantError(f"{name!r}: {'; '.join(problems)}") from error


def _not_among(model: str, known: Iterable[str], of: str = "models") -> str:
    return f"{model!r} is not among the recipe's {of} ({', '.join(known)})"
