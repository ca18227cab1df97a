"""Recipes and checkpoints of any size, for the planner and what follows from it."""

from collections.abc import Callable
from typing import Any

import pytest

from cluster.cards.card import GIB, Card
from cluster.plan.checkpoint import Attention, Checkpoint
from configs.schema import Recipe

MakeRecipe = Callable[..., Recipe]
MakeCheckpoint = Callable[..., Checkpoint]
MakeCard = Callable[..., Card]


@pytest.fixture(scope="session")
def make_recipe() -> MakeRecipe:
    """Makes a recipe from the names of its proposers and its aggregator.

    make_recipe("a", "b", aggregator="c", engine="vllm", cards={...}, a={"residency": ...}): further
    keywords are settings of the model of that name.
    """

    def make(*proposers: str, aggregator: str, engine: str = "vllm", **more: Any) -> Recipe:
        cards = more.pop("cards", {})
        weights = [{"path": "x.gguf" if engine == "llamacpp" else "x"}]
        base = {"engine": engine, "weights": weights, "concurrency": 2, "context_tokens": 4096}
        names = dict.fromkeys([*proposers, aggregator])
        return Recipe.model_validate(
            {
                "name": "mix",
                "models": {name: base | more.get(name, {}) for name in names},
                "layers": [{"proposers": [{"model": name} for name in proposers]}],
                "aggregator": {"model": aggregator},
                "cards": cards,
            }
        )

    return make


@pytest.fixture(scope="session")
def make_checkpoint() -> MakeCheckpoint:
    """Makes a dense model with 16-bit weights of a size in GiB: make_checkpoint(37.0)."""

    def make(weights_gib: float) -> Checkpoint:
        layers, hidden, vocab = 32, 4096, 32000
        attention = layers * hidden * (2 * hidden + 2048)
        weights = int(weights_gib * GIB)
        ffn = max(1, (weights // 2 - attention - 2 * vocab * hidden) // (3 * layers * hidden))
        return Checkpoint(
            weight_bytes=weights,
            layers=layers,
            hidden=hidden,
            ffn=ffn,
            vocab=vocab,
            query_width=4096,
            attention=(Attention(layers, 2048),),
            lookup_bytes=2 * vocab * hidden,
        )

    return make


@pytest.fixture(scope="session")
def make_card() -> MakeCard:
    """Makes a GPU with memory of a size in GiB: make_card(80)."""

    def make(gib: float, **more: Any) -> Card:
        return Card(
            name="gpu",
            total_bytes=int(gib * GIB),
            kind="gpu",
            bandwidth=1e12,
            flops=1e14,
            link=3e10,
            **more,
        )

    return make
