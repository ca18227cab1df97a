"""A variant differs from its base in what its name says, and in nothing else."""

from collections.abc import Callable
from typing import Any

import pytest

from configs.load import load, presets
from configs.schema import Recipe
from jobs import variants
from jobs.variants import Variant, VariantError


def base(**changes: Any) -> Recipe:
    """A recipe with three proposers in its first layer, one of which gives two samples, and with two
    proposers in its second layer."""
    models: dict[str, Any] = {
        name: {"engine": "scripted"} for name in ("a", "b", "c", "spare", "writer")
    }
    models["small"] = {"engine": "scripted", "context_tokens": 512}
    first = [
        {"model": "a", "sampling": {"temperature": 0.1, "seed": 5}},
        {"model": "b", "samples": 2, "sampling": {"temperature": 0.2}},
        {"model": "c"},
    ]
    second = [{"model": "b", "sampling": {"temperature": 0.3}}, {"model": "a"}]
    data = {
        "name": "mix",
        "models": models,
        "layers": [{"proposers": first}, {"proposers": second}],
        "aggregator": {"model": "writer", "sampling": {"temperature": 0.5}, "fallbacks": ["a"]},
        "limits": {"quorum": 2},
    }
    return Recipe.model_validate(data | changes)


def places(variant: Variant) -> list[list[tuple[str, int, float | None, int | None]]]:
    """Model, samples, temperature and seed of each proposer, by layer."""
    return [
        [
            (p.model, p.samples, p.sampling.filled().temperature, p.sampling.seed)
            for p in layer.proposers
        ]
        for layer in variant.recipe.layers
    ]


MAKERS: list[Callable[[Recipe, str], Variant]] = [
    variants.without,
    variants.with_also,
    variants.aggregated_by,
    variants.self_moa,
]


def test_the_base_and_its_models_alone_are_variants_too() -> None:
    recipe = base()
    assert variants.mixture(recipe) == Variant("mix", recipe)
    assert variants.alone(recipe, "spare") == Variant("spare", recipe, "spare")
    with pytest.raises(
        VariantError, match=r"'nobody' is not among the recipe's models \(a, b, c, spare"
    ):
        variants.alone(recipe, "nobody")


def test_without_a_proposer_all_of_its_places_go() -> None:
    found = variants.without(base(), "b")
    assert found.name == found.recipe.name == "mix-without-b"
    assert places(found) == [[("a", 1, 0.1, 5), ("c", 1, 0.7, None)], [("a", 1, 0.7, None)]]


@pytest.mark.parametrize(("model", "quorum"), [("b", 1), ("c", 2)])
def test_the_quorum_sinks_only_to_what_the_rest_can_reach(model: str, quorum: int) -> None:
    found = variants.without(base(), model).recipe.limits
    assert found.quorum == quorum
    assert found == base().limits.model_copy(update={"quorum": quorum})


def test_who_proposes_nowhere_or_all_by_itself_cannot_be_left_out() -> None:
    with pytest.raises(VariantError, match=r"'writer' is not among the recipe's proposers \(a, b, c\)"):
        variants.without(base(), "writer")
    shared, lonely = [{"model": "a"}, {"model": "b"}], [{"model": "a"}]
    recipe = base(layers=[{"proposers": shared}, {"proposers": lonely}], limits={"quorum": 1})
    with pytest.raises(VariantError, match="'mix-without-a': layer 2 has no other proposer than 'a'"):
        variants.without(recipe, "a")


def test_one_more_proposer_stands_last_in_every_layer_without_the_seed_of_the_first() -> None:
    found = variants.with_also(base(), "spare")
    assert found.name == found.recipe.name == "mix-with-spare"
    assert [layer[-1] for layer in places(found)] == [("spare", 1, 0.1, None), ("spare", 1, 0.3, None)]
    assert [layer[:-1] for layer in places(found)] == places(variants.mixture(base()))


def test_another_aggregator_samples_alike_and_nobody_stands_in_for_it() -> None:
    found = variants.aggregated_by(base(), "spare")
    assert found.name == found.recipe.name == "mix-by-spare"
    assert found.recipe.aggregator == base().aggregator.model_copy(
        update={"model": "spare", "fallbacks": ()}
    )
    assert found.recipe.layers == base().layers


def test_self_moa_has_as_many_calls_of_one_model() -> None:
    found = variants.self_moa(base(), "b")
    assert found.name == found.recipe.name == "mix-self-b"
    assert places(found) == [[("b", 4, 0.2, None)], [("b", 2, 0.3, None)]]
    assert found.recipe.aggregator == base().aggregator
    assert found.recipe.calls_per_answer() == base().calls_per_answer() == 4 + 2 + 1


def test_self_moa_of_a_model_that_proposes_nowhere_samples_as_the_first_proposer() -> None:
    assert places(variants.self_moa(base(), "spare")) == [
        [("spare", 4, 0.1, None)],
        [("spare", 2, 0.3, None)],
    ]


def test_a_replaced_proposer_leaves_its_places_as_they_were() -> None:
    found = variants.with_replacements(base(), {"b": "spare", "a": "writer"})
    assert found.name == found.recipe.name == "mix-spare-for-b-writer-for-a"
    assert places(found) == [
        [("writer", 1, 0.1, 5), ("spare", 2, 0.2, None), ("c", 1, 0.7, None)],
        [("spare", 1, 0.3, None), ("writer", 1, 0.7, None)],
    ]
    assert found.recipe.aggregator == base().aggregator
    assert variants.with_replacements(base(), {"b": "spare"}, "bf16").name == "mix-bf16"
    with pytest.raises(VariantError, match="'spare' is not among the recipe's proposers"):
        variants.with_replacements(base(), {"spare": "a"})


@pytest.mark.parametrize("make", MAKERS)
def test_all_else_is_the_base(make: Callable[[Recipe, str], Variant]) -> None:
    untouched = {"description", "models", "references", "cards"}
    found = make(base(), "b").recipe
    assert found.model_dump(include=untouched) == base().model_dump(include=untouched)


@pytest.mark.parametrize("make", MAKERS[1:])
def test_a_variant_that_breaks_a_rule_says_which(make: Callable[[Recipe, str], Variant]) -> None:
    with pytest.raises(VariantError, match="'nobody' is not a model of this recipe"):
        make(base(), "nobody")
    with pytest.raises(
        VariantError, match="512 tokens of answer leave a prompt no room in model 'small'"
    ):
        make(base(), "small")


def test_a_name_that_is_too_long_or_taken_is_refused() -> None:
    with pytest.raises(VariantError, match=r"'m{124}-with-spare': name: .*at most 128 characters"):
        variants.with_also(base(name="m" * 124), "spare")
    models = {name: {"engine": "scripted"} for name in ("a", "b", "c", "writer", "mix-by-b")}
    with pytest.raises(VariantError, match="'mix-by-b' is also the name of a model"):
        variants.aggregated_by(base(models=models), "b")


@pytest.mark.parametrize("preset", presets())
def test_every_preset_has_its_variants_or_says_why_not(preset: str) -> None:
    recipe = load(preset)
    tried = [_tried(make, recipe, model) for make in MAKERS for model in recipe.models]
    names = [made.name for made in tried if isinstance(made, Variant)]
    assert len(set(names)) == len(names) > 0
    assert all(str(made) for made in tried if isinstance(made, VariantError))


def _tried(
    make: Callable[[Recipe, str], Variant], recipe: Recipe, model: str
) -> Variant | VariantError:
    try:
        return make(recipe, model)
    except VariantError as error:
        return error


def test_what_a_method_needs_is_lowered_where_a_variant_has_less() -> None:
    data = base().model_dump()
    sparse = [data["layers"][0], {**data["layers"][1], "see": 4}]
    mix = base(layers=sparse, exit={"answer": "number", "agree": 3, "of_models": 3})
    less = variants.without(mix, "b").recipe
    assert (less.layers[1].see, less.exit and (less.exit.agree, less.exit.of_models)) == (2, (2, 2))
    alone = variants.self_moa(mix, "a").recipe
    assert (alone.layers[1].see, alone.exit and alone.exit.of_models) == (4, 1)
    more = variants.with_also(mix, "spare").recipe
    assert (more.layers[1].see, more.exit) == (4, mix.exit)


def test_a_pick_and_a_vote_have_no_overlap_which_only_a_merge_can_have() -> None:
    recipe = base(aggregator={"model": "writer", "overlap": "on"})
    assert variants.by_method(recipe, "merge").recipe.aggregator.overlap == "on"
    assert variants.by_method(recipe, "select").recipe.aggregator.overlap == "off"
    assert variants.by_method(recipe, "vote", "number").recipe.aggregator.overlap == "off"
