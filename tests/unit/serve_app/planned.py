"""Plans of small recipes, for tests of what is made of a plan."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cluster.cards.card import GIB, Card
from cluster.plan.placement import Placement
from cluster.plan.planner import plan_recipe
from configs.schema import Recipe

GPU = Card(name="gpu", total_bytes=40 * GIB, kind="gpu")
CPU = Card(name="cpu", total_bytes=40 * GIB, kind="cpu", cores=8)


def make_recipe(sizes_gib: dict[str, int | None], **settings: Any) -> Recipe:
    """A recipe of scripted models, planned as if they had weights of these sizes.

    The first model is the aggregator. A model of size None takes no card. `settings` has further
    settings of models by name, and the recipe's `cards`.
    """
    cards = settings.pop("cards", {})
    models: dict[str, Any] = {}
    for name, gib in sizes_gib.items():
        models[name] = {"engine": "scripted", "concurrency": 4}
        if gib is not None:
            models[name]["weight_bytes"] = gib * GIB
        models[name] |= settings.get(name, {})
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": models,
            "layers": [{"proposers": [{"model": name} for name in sizes_gib]}],
            "aggregator": {"model": next(iter(sizes_gib))},
            "cards": cards,
        }
    )


def cards_of_nodes(card: Card, *counts: int) -> list[Card]:
    """Cards on nodes n1, n2 and so on: as many of this kind as each count says."""
    return [
        replace(card, node=f"n{node}", indices=(number,))
        for node, count in enumerate(counts, 1)
        for number in range(count)
    ]


def make_plan(recipe: Recipe, cards: Sequence[Card]) -> Placement:
    return plan_recipe(recipe, cards)
