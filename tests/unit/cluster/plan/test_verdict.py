"""A plan in words: whether a recipe fits, and how fast it answers."""

from dataclasses import replace
from typing import Any

import pytest

from cluster.cards.card import GIB, Card
from cluster.cards.catalog import card_by_name
from cluster.plan.planner import DoesNotFit, plan
from cluster.plan.task import planning_task
from cluster.plan.verdict import Fit, duration, judge
from configs.load import load
from configs.schema import Recipe

NOTHING_HERE = lambda _name, _model: None  # noqa: E731


def scripted(*gib: float) -> Recipe:
    """A recipe of models that take so many GiB of a card each."""
    models: dict[str, Any] = {
        f"m{n}": {"engine": "scripted", "weight_bytes": int(each * GIB)} for n, each in enumerate(gib)
    }
    proposers = [{"model": name} for name in models]
    return Recipe.model_validate(
        {
            "name": "r",
            "models": models,
            "layers": [{"proposers": proposers}],
            "aggregator": {"model": "m0"},
        }
    )


@pytest.mark.parametrize(
    ("preset", "card", "fit", "words"),
    [
        ("slim_moa_a100", "A100-80GB", Fit.TURNS, "takes turns, about 76 s an answer"),
        ("self_moa", "A100-80GB", Fit.AWAKE, "fits, all awake, about 12 s an answer"),
    ],
)
def test_a_recipe_that_fits_is_awake_or_takes_turns(
    preset: str, card: str, fit: Fit, words: str
) -> None:
    verdict = judge(load(preset), [card_by_name(card)], NOTHING_HERE)
    assert (verdict.fit, verdict.words) == (fit, words)


def test_a_recipe_that_does_not_fit_says_the_least_memory_that_does() -> None:
    card, recipe = card_by_name("RTX-4090"), load("slim_moa_a100")
    verdict = judge(recipe, [card], NOTHING_HERE)
    assert verdict.fit is Fit.NO
    assert verdict.words == "does not fit: needs 55 GiB, the card has 23.4 GiB"
    for gib, fits in ((54, False), (56, True)):
        task = planning_task(recipe, [replace(card, total_bytes=gib * GIB)], NOTHING_HERE)
        if fits:
            plan(task)
        else:
            with pytest.raises(DoesNotFit):
                plan(task)


def test_models_on_a_cpu_that_stay_in_ram_are_loaded_and_the_others_take_turns() -> None:
    cpu = Card("cpu", 16 * GIB, cores=8, bandwidth=20e9, flops=1e12, host_bytes=16 * GIB)
    assert judge(scripted(1, 1), [cpu], NOTHING_HERE).words.startswith("fits, all loaded, about ")
    assert judge(scripted(9, 9), [cpu], NOTHING_HERE).fit in (Fit.TURNS, Fit.SLOW)
    none = judge(scripted(40), [cpu], NOTHING_HERE)
    assert none.words.startswith("does not fit: needs 4")
    assert none.words.endswith(" GiB, the machine has 16.0 GiB")


def test_an_answer_that_takes_longer_than_the_recipe_waits_is_too_slow() -> None:
    cpu = Card("cpu", 64 * GIB, cores=1, bandwidth=1e9, flops=1e10, host_bytes=64 * GIB)
    verdict = judge(scripted(20), [cpu], NOTHING_HERE)
    assert verdict.fit is Fit.SLOW
    assert verdict.words.startswith("too slow here, about ")
    assert verdict.words.endswith(" minutes an answer, and it gives up after 5 minutes")


def test_a_recipe_without_weights_takes_no_card() -> None:
    verdict = judge(load("scripted"), [card_by_name("L4")], NOTHING_HERE)
    assert (verdict.fit, verdict.words, verdict.answer_s) == (Fit.AWAKE, "takes no card", None)


def test_weights_that_nothing_tells_of_are_said_not_to_be_here() -> None:
    verdict = judge(load("vllm_cpu"), [card_by_name("L4")], NOTHING_HERE)
    assert (verdict.fit, verdict.words) == (Fit.UNKNOWN, "cannot be planned: its weights are not here")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "about 1 s"), (9.4, "about 9 s"), (99, "about 99 s"), (100, "about 2 minutes")],
)
def test_durations_are_rounded(seconds: float, words: str) -> None:
    assert duration(seconds) == words
