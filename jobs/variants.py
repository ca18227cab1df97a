"""Variants of a mixture, as ablations compare them: pure changes of a recipe, each with a name.

The *base* is the mixture as it is. A variant changes the proposers or the aggregator. Prompts, limits
and the sampling of every model that stays are those of the base. Only numbers that would be out of
reach are lowered: a quorum, `see` of a layer, and how many proposals and models an exit needs. So most
calls of a variant are calls of the base, which are stored already.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import ValidationError

from configs.errors import UserError
from configs.schema import Aggregator, AnswerForm, Layer, Proposer, Recipe, Sampling

P = TypeVar("P", Proposer, Aggregator)


class VariantError(UserError):
    """A variant cannot be made of a recipe; the message names the variant and says why."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What answers the rows of a set: a mixture, or one of its recipe's models alone."""

    name: str
    """The name of the generator."""

    recipe: Recipe
    """The whole recipe, also for a model alone."""

    model: str | None = None
    """The model that is asked alone; None for a mixture."""

    @property
    def models(self) -> set[str]:
        """Names of the models that may be asked."""
        if self.model is not None:
            return {self.model}
        proposers = {proposer.model for proposer in self.recipe.proposers()}
        return proposers | set(self.recipe.aggregators)

    def calls_per_answer(self) -> int:
        """The number of engine calls that one answer takes when nothing fails."""
        return self.recipe.calls_per_answer() if self.model is None else 1


def mixture(recipe: Recipe) -> Variant:
    """The base: the recipe as it is."""
    return Variant(recipe.name, recipe)


def alone(recipe: Recipe, model: str) -> Variant:
    """One of the recipe's models, asked directly.

    Raises:
        VariantError: the recipe has no such model.
    """
    if model not in recipe.names:
        raise VariantError(f"{model!r} alone: {_not_among(model, recipe.names)}")
    return Variant(model, recipe, model)


def sampling_alone(recipe: Recipe, model: str) -> Sampling:
    """The sampling of a model that is asked alone.

    A proposer keeps its sampling of the first layer in which it proposes. If this is layer 1, the
    model's first proposal and its answer alone are the same call. A model that does not propose is
    sampled as the aggregator.
    """
    first = next((p for p in recipe.proposers() if p.model == model), None)
    return recipe.aggregator.sampling if first is None else first.sampling


def without(recipe: Recipe, model: str) -> Variant:
    """The mixture without a proposer.

    The model is removed from every layer. A quorum that the remaining proposers could not reach is
    lowered to the number of samples of the smallest layer.

    Raises:
        VariantError: the model is no proposer, or a layer would be empty.
    """
    name = f"{recipe.name}-without-{model}"
    if model not in proposer_models(recipe):
        raise VariantError(f"{name!r}: {_not_among(model, proposer_models(recipe), 'proposers')}")
    layers = []
    for number, layer in enumerate(recipe.layers, 1):
        rest = [proposer for proposer in layer.proposers if proposer.model != model]
        if not rest:
            raise VariantError(f"{name!r}: layer {number} has no other proposer than {model!r}")
        layers.append(rest)
    quorum = min([recipe.limits.quorum, *(sum(p.samples for p in rest) for rest in layers)])
    limits = recipe.limits.model_dump() | {"quorum": quorum}
    return _make_variant(recipe, name, **_parts(recipe, layers), limits=limits)


def with_also(recipe: Recipe, model: str) -> Variant:
    """The mixture with one more proposer, at the end of every layer.

    The new proposer is sampled as the first proposer of the layer, but without a fixed seed.

    Raises:
        VariantError: the recipe has no such model, or the model's context is too small for the
            sampling.
    """
    layers = [[*layer.proposers, _like_first(layer, model)] for layer in recipe.layers]
    return _make_variant(recipe, f"{recipe.name}-with-{model}", **_parts(recipe, layers))


def aggregated_by(recipe: Recipe, model: str) -> Variant:
    """The mixture with another aggregator, sampled as the base's.

    The variant has no fallbacks: an answer by another model would be counted as this aggregator's.

    Raises:
        VariantError: the recipe has no such model, or the model's context is too small for the
            sampling.
    """
    aggregator = recipe.aggregator.model_dump() | {"model": model, "fallbacks": ()}
    return _make_variant(recipe, f"{recipe.name}-by-{model}", aggregator=aggregator)


def with_replacements(recipe: Recipe, models: Mapping[str, str], label: str | None = None) -> Variant:
    """The mixture with other models in place of some proposers, in every layer; the aggregator stays.

    Args:
        recipe: The recipe of the base.
        models: For each proposer to replace, the new model.
        label: What the variant's name ends with; by default all replacements.

    Raises:
        VariantError: an old model is no proposer, or a new model is unknown or has too small a context.
    """
    ending = label or "-".join(f"{new}-for-{old}" for old, new in models.items())
    name = f"{recipe.name}-{ending}"
    for old in models:
        if old not in proposer_models(recipe):
            raise VariantError(f"{name!r}: {_not_among(old, proposer_models(recipe), 'proposers')}")
    layers = [
        [p.model_copy(update={"model": models.get(p.model, p.model)}) for p in layer.proposers]
        for layer in recipe.layers
    ]
    return _make_variant(recipe, name, **_parts(recipe, layers))


def self_moa(recipe: Recipe, model: str) -> Variant:
    """Self-MoA (Li et al., 2025) with as many calls as the base.

    In each layer `model` alone proposes, with as many samples as all proposers of the base together.
    The aggregator stays.

    Raises:
        VariantError: the recipe has no such model, the model's context is too small, or a layer has
            more samples than one proposer may give.
    """
    layers = [[_with_all_samples(layer, model)] for layer in recipe.layers]
    return _make_variant(recipe, f"{recipe.name}-self-{model}", **_parts(recipe, layers))


def by_method(recipe: Recipe, method: str, form: AnswerForm | None = None) -> Variant:
    """The mixture with another method of its aggregator, and without an early end. Its proposals are
    those of the base.

    Args:
        recipe: The recipe of the base.
        method: The method.
        form: Where the answer stands in a proposal, for a vote.

    Raises:
        VariantError: the method does not suit the recipe.
    """
    aggregator = recipe.aggregator.model_dump() | {"method": method, "guard": False}
    aggregator["answer"] = None if form is None else _plain_form(form)
    if method != "merge":
        aggregator["overlap"] = "off"  # a recipe may ask for it, and only a merge can have it
    return _make_variant(
        recipe, f"{recipe.name}-{method}", aggregator=aggregator, exit=None, first=None
    )


def sampled_alone(
    recipe: Recipe, model: str, samples: int, method: str, form: AnswerForm | None
) -> Variant:
    """One model alone, sampled so many times in one layer. The aggregator comes to one answer by a
    method.

    Raises:
        VariantError: the recipe has no such model, the method does not suit so many samples, or one
            proposer may not give so many.
    """
    layer = recipe.layers[0]
    own = next((p for p in recipe.proposers() if p.model == model), None) or _like_first(layer, model)
    proposer = own.model_copy(update={"samples": samples}).model_dump()
    plain = by_method(recipe, method, form).recipe
    limits = recipe.limits.model_dump() | {"quorum": min(recipe.limits.quorum, samples)}
    name = f"{recipe.name}-{samples}x-{model}-{method}"
    return _make_variant(plain, name, layers=[{"proposers": [proposer]}], limits=limits)


def proposer_models(recipe: Recipe) -> tuple[str, ...]:
    """The models that propose, each once, in the order in which they first appear."""
    return tuple(dict.fromkeys(proposer.model for proposer in recipe.proposers()))


def at_temperature(variant: Variant, temperature: float) -> Variant:
    """The variant with one temperature for all of its proposers and its aggregator."""

    def sampled(part: P) -> P:
        return part.model_copy(
            update={"sampling": part.sampling.model_copy(update={"temperature": temperature})}
        )

    recipe = variant.recipe
    layers = tuple(
        layer.model_copy(update={"proposers": tuple(map(sampled, layer.proposers))})
        for layer in recipe.layers
    )
    changes = {"layers": layers, "aggregator": sampled(recipe.aggregator)}
    return replace(variant, recipe=recipe.model_copy(update=changes))


def _like_first(layer: Layer, model: str) -> Proposer:
    # Without the seed: with the first proposer's seed the same model would only repeat its text.
    sampling = layer.proposers[0].sampling.model_copy(update={"seed": None})
    return Proposer(model=model, sampling=sampling)


def _with_all_samples(layer: Layer, model: str) -> Proposer:
    own = (proposer for proposer in layer.proposers if proposer.model == model)
    base = next(own, None) or _like_first(layer, model)
    return base.model_copy(update={"samples": layer.samples})


def _parts(recipe: Recipe, layers: Sequence[Sequence[Proposer]]) -> dict[str, Any]:
    """The layers of a variant, and its exit, as parts of a recipe."""
    samples = [sum(proposer.samples for proposer in layer) for layer in layers]
    parts: dict[str, Any] = {"layers": []}
    for number, layer in enumerate(layers):
        see = recipe.layers[number].see
        parts["layers"].append(
            {
                "proposers": [proposer.model_dump() for proposer in layer],
                "see": None if see is None else min(see, samples[number - 1]),
            }
        )
    if recipe.exit is not None:
        agree = max(2, min(recipe.exit.agree, max(samples)))
        models = max(len({proposer.model for proposer in layer}) for layer in layers)
        fewer = {"agree": agree, "of_models": min(recipe.exit.of_models, models, agree)}
        parts["exit"] = recipe.exit.model_dump() | fewer if max(samples) >= 2 else None
    return parts


def _make_variant(recipe: Recipe, name: str, **parts: Any) -> Variant:
    """The recipe with another name and other parts, validated like a recipe from a file."""
    try:
        # Without `access`, which may name the mixture by its own name.
        settings = recipe.model_dump() | {"name": name, "access": {}} | parts
        return Variant(name, Recipe.model_validate(settings))
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}".lstrip(": ") for e in error.errors())
        raise VariantError(f"{name!r}: {'; '.join(problems)}") from error


def _plain_form(form: AnswerForm) -> Any:
    return form if isinstance(form, str) else form.model_dump()


def _not_among(model: str, known: Iterable[str], of: str = "models") -> str:
    return f"{model!r} is not among the recipe's {of} ({', '.join(known)})"
