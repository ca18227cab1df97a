"""What a recipe answers about itself."""

from typing import Any

import pytest

from configs.schema import Recipe


def recipe(**changes: Any) -> Recipe:
    """Two layers: `one` four times and `two` once, then `two` twice; `writer` aggregates, else `two`.

    Args:
        changes: top-level keys of the recipe to replace.
    """
    scripted = {"engine": "scripted"}
    data: dict[str, Any] = {
        "name": "mix",
        "models": {"one": scripted | {"concurrency": 5}, "two": scripted, "writer": scripted},
        "layers": [
            {"proposers": [{"model": "one", "samples": 3}, {"model": "two"}, {"model": "one"}]},
            {"proposers": [{"model": "two", "samples": 2}]},
        ],
        "aggregator": {"model": "writer", "fallbacks": ["two"]},
    }
    return Recipe.model_validate(data | changes)


def test_the_proposers_come_layer_by_layer() -> None:
    assert [(p.model, p.samples) for p in recipe().proposers()] == [
        ("one", 3),
        ("two", 1),
        ("one", 1),
        ("two", 2),
    ]


def test_a_layer_counts_its_samples_by_model() -> None:
    first, second = recipe().layers
    assert first.samples_by_model() == {"one": 4, "two": 1}
    assert second.samples_by_model()["one"] == 0
    assert (first.samples, second.samples) == recipe().samples == (5, 2)


def test_the_aggregator_is_a_stage_too() -> None:
    assert recipe().stages == 3


def test_the_aggregators_are_in_the_order_in_which_they_take_over() -> None:
    assert recipe().aggregators == ("writer", "two")


def test_an_answer_calls_each_sample_and_the_aggregator_but_no_fallback() -> None:
    calls = {name: recipe().calls_per_answer(name) for name in recipe().models}
    assert calls == {"one": 4, "two": 1 + 2, "writer": 1}
    assert recipe().calls_per_answer() == 4 + 3 + 1


def test_a_model_that_proposes_and_aggregates_is_called_for_both() -> None:
    both = recipe(aggregator={"model": "one"})
    assert both.calls_per_answer("one") == 4 + 1
    assert both.calls_per_answer() == 4 + 3 + 1


def test_the_most_calls_at_once_are_those_of_the_widest_stage() -> None:
    assert recipe().calls_at_once("mix") == {"one": 4, "two": 2, "writer": 1}
    assert recipe(aggregator={"model": "one"}).calls_at_once("mix") == {"one": 4, "two": 2}


def test_a_model_that_answers_alone_has_one_call() -> None:
    assert recipe().calls_at_once("one") == {"one": 1}


@pytest.mark.parametrize(
    ("model", "expected"), [("one", 70), ("two", 90), ("writer", 90), ("spare", 0)]
)
def test_the_longest_answer_is_that_of_any_role_of_the_model(model: str, expected: int) -> None:
    short, long, longest = ({"max_tokens": tokens} for tokens in (60, 70, 90))
    mixture = recipe(
        models={name: {"engine": "scripted"} for name in ("one", "two", "writer", "spare")},
        layers=[
            {"proposers": [{"model": "one", "sampling": long}, {"model": "two", "sampling": short}]},
            {"proposers": [{"model": "one", "sampling": short}]},
        ],
        aggregator={"model": "writer", "fallbacks": ["two"], "sampling": longest},
    )
    assert mixture.longest_answer(model) == expected


def test_by_default_as_many_calls_wait_as_double_the_time_of_an_answer() -> None:
    mixture = recipe()
    answers = 2 * mixture.stages * 5  # twice as many as keep all three stages of `one` busy
    assert mixture.queue_limit("one") == answers - 5
    assert mixture.queue_limit("two") == (2 * 3 - 1) * 4
    assert mixture.capacity_per_replica("one") == answers


def test_the_recipe_may_give_the_length_of_the_queue() -> None:
    mixture = recipe(limits={"queue": 3})
    assert mixture.queue_limit("one") == mixture.queue_limit("two") == 3
    assert mixture.capacity_per_replica("one") == 5 + 3
    assert recipe(limits={"queue": 0}).queue_limit("one") == 0
