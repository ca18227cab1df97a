"""What makes two variants the same generator of a store."""

from collections.abc import Mapping

import pytest

from configs.schema import Recipe
from jobs import variants
from jobs.identity import to_generator
from jobs.variants import Variant
from tests.unit.jobs.answering import MIX, recipe

IDENTITIES = dict.fromkeys("abcyz", "1")


def identity(
    of: Recipe, model: str | None = None, identities: Mapping[str, str] = IDENTITIES, seed: int = 0
) -> str:
    return to_generator(Variant("v", of, model), identities, seed).identity


@pytest.mark.parametrize(
    "other",
    [
        recipe(description="other"),
        recipe(limits={"deadline_s": 700, "queue": 9}),
        recipe(cards={"patience_s": 7}),
        recipe(name="other"),
    ],
)
def test_how_a_run_goes_is_no_part_of_a_generators_identity(other: Recipe) -> None:
    assert identity(other) == identity(recipe())
    assert identity(other, "a") == identity(recipe(), "a")


@pytest.mark.parametrize(
    "other",
    [
        recipe(["b", "a"]),
        recipe(["a", "b"], ["a"]),
        recipe(["a", {"model": "b", "samples": 2}]),
        recipe(["a", {"model": "b", "sampling": {"temperature": 0.1}}]),
        recipe(aggregator={"model": "y"}),
        recipe(aggregator={"model": "z", "fallbacks": ["y"]}),
        recipe(aggregator={"model": "z", "sampling": {"max_tokens": 7}}),
        recipe(references={"style": "tail"}),
        recipe(references={"prompt": "Choose."}),
    ],
)
def test_what_is_asked_is_a_mixtures_identity(other: Recipe) -> None:
    assert identity(other) != identity(recipe())


def test_a_model_is_known_by_what_it_is_and_only_to_those_who_ask_it() -> None:
    base, fallback = recipe(), recipe(aggregator={"model": "z", "fallbacks": ["y"]})
    for model, mix, alone, spare in (("a", 1, 1, 1), ("z", 1, 0, 1), ("y", 0, 0, 1), ("c", 0, 0, 0)):
        changed = IDENTITIES | {model: "2"}
        assert (identity(base, None, changed) != identity(base)) == mix
        assert (identity(base, "a", changed) != identity(base, "a")) == alone
        assert (identity(fallback, None, changed) != identity(fallback)) == spare
    assert identity(base, seed=1) != identity(base)
    assert identity(base, "a", seed=1) != identity(base, "a")
    sampled = recipe([{"model": "a", "sampling": {"temperature": 0.1}}, "b"])
    assert identity(sampled, "a") != identity(base, "a")
    assert identity(sampled, "b") == identity(base, "b")


def test_a_generator_tells_people_what_it_is() -> None:
    mix = to_generator(MIX, IDENTITIES, 0)
    assert (mix.name, mix.kind) == ("mix", "mixture")
    assert Recipe.model_validate(mix.about["recipe"]) == MIX.recipe
    alone = to_generator(variants.alone(MIX.recipe, "a"), IDENTITIES, 0)
    assert (alone.name, alone.kind, alone.about) == ("a", "model", {"model": {"engine": "scripted"}})
