"""Says how the models of a recipe are sampled where a model's own sampling or its makers decide."""

from collections.abc import Iterator
from typing import Any

from configs.schema import OpenAIHttpModel, Recipe, Sampling


def shown_samplings(recipe: Recipe) -> Iterator[str]:
    """A line for each proposer and aggregator whose sampling is not all said there in the recipe.

    Each value that is not said there is followed by its origin: `model`, the model's `sampling` in
    the recipe, or `checkpoint`, what the model's makers advise.

    Raises:
        UnknownCheckpoint: the files of a model cannot be read, or advise what cannot be.
    """
    for where, name, sampling in _uses(recipe):
        values, note = _values(recipe, name, sampling)
        if values or note:
            listed = ", ".join(f"{value} {shown}" for value, shown in values.items())
            yield f"sampling of {name}, {where}: {'; '.join(filter(None, [listed, note]))}"


def _uses(recipe: Recipe) -> Iterator[tuple[str, str, Sampling]]:
    for number, layer in enumerate(recipe.layers, 1):
        for proposer in layer.proposers:
            yield f"layer {number}", proposer.model, proposer.sampling
    for model in recipe.aggregators:
        yield "aggregator", model, recipe.aggregator.sampling


def _values(recipe: Recipe, name: str, sampling: Sampling) -> tuple[dict[str, str], str]:
    """The values by name, as text with their origin, and what else is to be said."""
    from actors.weights.lookup import advised_here

    model = recipe.settings(name)
    advised: dict[str, Any] = {}
    note = ""
    if "checkpoint" in (sampling.base, model.sampling.base):
        found = None if isinstance(model, OpenAIHttpModel) else advised_here(model)
        advised = found or {}
        if isinstance(model, OpenAIHttpModel):
            note = "the server's own defaults hold for all else"
        elif model.engine == "scripted":
            note = "a scripted model has no checkpoint; our defaults hold for all else"
        elif found is None:
            note = "what its makers advise is known once its weights are here"
        elif not found:
            note = "its checkpoint advises nothing; our defaults hold for all else"
    elif not model.sampling.said:
        return {}, ""
    origins = {"": sampling.said, " (model)": model.sampling.said, " (checkpoint)": advised}
    values: dict[str, str] = {}
    for origin, said in origins.items():
        for value, number in said.items():
            values.setdefault(value, f"{number:g}{origin}")
    return values, note
