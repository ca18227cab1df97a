"""Sampling in a recipe: what is said, what is unsaid, and the word `checkpoint`."""

from typing import Any

import pytest
from pydantic import ValidationError

from configs.cross_checks import inconsistencies
from configs.schema import ModelSampling, Proposer, Recipe, Sampling

HTTP = {"engine": "openai_http", "base_url": "http://here/v1", "model": "m"}


def recipe(sampling: Any, model: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "name": "mix",
        "models": {"m": model or {"engine": "scripted"}},
        "layers": [{"proposers": [{"model": "m", "sampling": sampling}]}],
        "aggregator": {"model": "m"},
    }


def test_nothing_is_said_by_default_and_our_engines_fill_it() -> None:
    assert Sampling().said == {}
    filled = Sampling(top_k=20).filled()
    assert (filled.temperature, filled.top_p, filled.top_k, filled.min_p) == (0.7, 1.0, 20, 0.0)
    assert (filled.repetition_penalty, filled.presence_penalty, filled.frequency_penalty) == (1, 0, 0)
    assert filled.max_tokens == 512


def test_what_is_said_stays_over_other_values() -> None:
    sampling = Sampling(temperature=0.0, top_p=0.5)
    assert sampling.over({"temperature": 1.0, "top_k": 20}).said == {
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 20,
    }
    assert sampling.over({}) is sampling


def test_without_a_limit_a_prompt_leaves_the_default_free() -> None:
    assert (Sampling().max_tokens, Sampling().most_tokens) == (None, 512)
    assert Sampling(thinking_tokens=88).most_tokens == 600


def test_checkpoint_is_a_word_and_values_may_stand_beside_it() -> None:
    assert Proposer.model_validate({"model": "m", "sampling": "checkpoint"}).sampling == Sampling(
        base="checkpoint"
    )
    beside = {"base": "checkpoint", "temperature": 0.2}
    assert Proposer.model_validate({"model": "m", "sampling": beside}).sampling == Sampling(
        base="checkpoint", temperature=0.2
    )
    whole = Recipe.model_validate(
        recipe("checkpoint", {"engine": "scripted", "sampling": "checkpoint"})
    )
    assert whole.models["m"].sampling == ModelSampling(base="checkpoint")
    assert Recipe.model_validate(whole.model_dump()) == whole


@pytest.mark.parametrize("word", ["model", "", 1, ["checkpoint"]])
def test_no_other_word_is_a_sampling(word: Any) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate(recipe(word))
    with pytest.raises(ValidationError):
        Recipe.model_validate(recipe({"base": word}))


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"min_tokens": -1}, "min_tokens: this has to be at least 0, not -1"),
        ({"mirostat": 3}, "mirostat"),
        ({"nonsense": 1}, "nonsense"),
        ({"logit_bias": {"a": 1}}, "token ids"),
        ({"structure": {"regex": "a", "choice": ["a"]}}, "one form has to be given, not regex, choice"),
        ({"structure": {}}, "one form has to be given, not none"),
    ],
)
def test_extra_parameters_are_checked(extra: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Sampling(extra=extra)
    assert named in str(refused.value)


@pytest.mark.parametrize(
    ("engine", "parameter", "known"),
    [
        ("scripted", "min_tokens", False),
        ("llamacpp", "min_tokens", False),
        ("llamacpp", "dry_multiplier", True),
        ("vllm", "min_tokens", True),
        ("vllm", "dry_multiplier", False),
        ("openai_http", "dry_multiplier", True),
    ],
)
def test_an_engine_that_does_not_take_an_extra_parameter_is_a_problem(
    engine: str, parameter: str, known: bool
) -> None:
    data = recipe({"extra": {parameter: 1}})
    data["models"]["m"] = {"engine": engine}
    problems = [str(problem) for problem in inconsistencies(data)]
    where = f"layers.0.proposers.0.sampling.extra.{parameter}: the engine '{engine}' of model 'm'"
    assert [problem.startswith(where) for problem in problems] == ([] if known else [True])


def test_a_server_without_a_limit_still_needs_room_for_a_prompt() -> None:
    with pytest.raises(ValidationError, match="512 tokens of answer leave a prompt no room"):
        Recipe.model_validate(recipe({}, HTTP | {"context_tokens": 512}))
