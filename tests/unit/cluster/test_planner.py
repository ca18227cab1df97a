"""Shares of the card: threads never add up to more than the cores, unless the recipe says so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.card import Card
from cluster.planner import CardShare, share_out
from configs.schema import (
    Aggregator,
    Layer,
    LlamaCppModel,
    LocalFile,
    Model,
    Proposer,
    Recipe,
    ScriptedModel,
)


def local(replicas: int = 1, threads: int | None = None) -> LlamaCppModel:
    weights = (LocalFile(path="w.gguf"),)
    return LlamaCppModel(engine="llamacpp", weights=weights, replicas=replicas, threads=threads)


def shares(cores: int, **models: Model) -> dict[str, CardShare]:
    name = next(iter(models))
    layer = Layer(proposers=(Proposer(model=name),))
    recipe = Recipe(name="mix", models=models, layers=(layer,), aggregator=Aggregator(model=name))
    return share_out(recipe, Card("cpu", 1 << 30, cores))


@pytest.mark.parametrize(
    ("cores", "models", "expected"),
    [
        (8, {"a": local()}, {"a": 8}),
        (8, {"a": local(), "b": local()}, {"a": 4, "b": 4}),
        (8, {"a": local(replicas=2), "b": local()}, {"a": 2, "b": 2}),
        (8, {"a": local(threads=6), "b": local()}, {"a": 6, "b": 2}),
        (8, {"a": local(threads=2), "b": local(), "c": local()}, {"a": 2, "b": 3, "c": 3}),
        (8, {"a": local(replicas=2, threads=3), "b": local()}, {"a": 3, "b": 2}),
        (1, {"a": local(), "b": local()}, {"a": 1, "b": 1}),
        (2, {"a": local(threads=4), "b": local()}, {"a": 4, "b": 1}),
    ],
)
def test_cores_are_divided_after_the_threads_that_the_recipe_sets(
    cores: int, models: dict[str, Model], expected: dict[str, int]
) -> None:
    assert {name: share.cores for name, share in shares(cores, **models).items()} == expected


def test_a_model_that_computes_elsewhere_takes_nothing() -> None:
    elsewhere = ScriptedModel(engine="scripted")
    found = shares(4, local=local(), elsewhere=elsewhere)
    assert found == {"local": CardShare(1.0, 4), "elsewhere": CardShare(0.0, 0)}
    assert shares(4, elsewhere=elsewhere) == {"elsewhere": CardShare(0.0, 0)}


@given(st.integers(1, 256), st.lists(st.integers(1, 8), min_size=1, max_size=12))
def test_shares_never_exceed_the_card(cores: int, replicas: list[int]) -> None:
    found = shares(cores, **{f"m{n}": local(count) for n, count in enumerate(replicas)})
    pairs = list(zip(found.values(), replicas, strict=True))
    assert sum(share.fraction * count for share, count in pairs) == pytest.approx(1)
    assert sum(share.cores * count for share, count in pairs) <= max(cores, sum(replicas))
