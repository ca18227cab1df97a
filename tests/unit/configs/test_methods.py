"""Settings of how proposals become one answer: what is refused, what has no effect, how many calls."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from configs.limit_checks import contradictions
from configs.load import RecipeError, parse
from configs.methods import short_calls
from configs.schema import Recipe
from configs.scripted_times import layer_times
from configs.void_settings import void_settings


def data(**parts: Any) -> dict[str, Any]:
    scripted = {"engine": "scripted", "context_tokens": 4096}
    return {
        "name": "mix",
        "models": {name: scripted.copy() for name in "abcz"},
        "layers": [{"proposers": [{"model": name} for name in "abc"]}],
        "aggregator": {"model": "z"},
        **parts,
    }


def aggregator(**settings: Any) -> dict[str, Any]:
    return {"aggregator": {"model": "z", **settings}}


def layers(*counts: int, **second: Any) -> dict[str, Any]:
    made = [{"proposers": [{"model": "a", "samples": count}]} for count in counts]
    return {"layers": [*made[:-1], {**made[-1], **second}]}


LLAMA = {"engine": "llamacpp", "weights": [{"path": "/m.gguf"}], "speculation": "ngram"}
SCRIPTED = {"engine": "scripted", "context_tokens": 4096}
ELSEWHERE = {
    "engine": "openai_http",
    "base_url": "http://localhost:1/v1",
    "model": "m",
    "context_tokens": 4096,
}


def overlapping(of_model: dict[str, Any], overlap: Any = "on") -> dict[str, Any]:
    """A recipe whose aggregator is this model, with overlap."""
    return {**aggregator(overlap=overlap), "models": {**data()["models"], "z": of_model}}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    (aggregator(method="vote"), "aggregator.answer", "the method vote needs this key"),
    (aggregator(method="blend"), "aggregator.method", "'merge', 'select', 'select_or_merge' or 'vote'"),
    (aggregator(margin=1.5), "aggregator.margin", "less than or equal to 1"),
    (aggregator(answer="word"), "aggregator.answer", "number, letter, boxed, or a mapping {regex"),
    (aggregator(answer={"regex": "("}), "aggregator.answer", "no regular expression of Python"),
    (aggregator(answer={"regex": "(a)(b)"}), "aggregator.answer", "this has 2 groups"),
    (aggregator(answer={"flags": "i", "regex": "a"}), "aggregator.answer", "not permitted"),
    ({**layers(1), "exit": {"answer": "number"}}, "exit", "leave exit out, or give more proposers"),
    ({**layers(10), **aggregator(method="select")}, "aggregator.method", "picks among 9 proposals"),
    (
        {**layers(7), **aggregator(guard=True)},
        "aggregator.guard",
        "the guard compares 6 proposals at most",
    ),
    (layers(2, see=1), "layers.0.see", "the first layer reads no proposals"),
    (layers(2, 2, see=3), "layers.1.see", "a sample cannot read 3 proposals, because layer 1 gives 2"),
    ({"exit": {"answer": "number", "agree": 4}}, "exit.agree", "4 proposals can never agree"),
    (
        {"exit": {"answer": "number", "of_models": 3}},
        "exit.of_models",
        "2 proposals (agree) cannot come from 3",
    ),
    ({**layers(3), "exit": {"answer": "number"}}, "exit.of_models", "no layer has 2 different models"),
    ({"exit": {}}, "exit.answer", "Field required"),
    (aggregator(overlap="early"), "aggregator.overlap", "'auto', 'on' or 'off'"),
    (aggregator(overlap="on", method="select"), "aggregator.overlap", "the method is select"),
    (
        aggregator(overlap="on", method="vote", answer="number"),
        "aggregator.overlap",
        "the method is vote",
    ),
    (overlapping(ELSEWHERE), "aggregator.overlap", "model 'z' runs on another server"),
    (
        overlapping(SCRIPTED | {"concurrency": 1}),
        "aggregator.overlap",
        "model 'z' has a concurrency of 1",
    ),
    (
        overlapping(LLAMA | {"concurrency": 1}, True),
        "aggregator.overlap",
        "model 'z' has a concurrency of 1",
    ),
    (overlapping(SCRIPTED | {"replicas": 2}), "aggregator.overlap", "model 'z' has several replicas"),
    (
        overlapping(SCRIPTED | {"replicas": {"min": 2, "max": 3}}),
        "aggregator.overlap",
        "model 'z' has several replicas",
    ),
    ({"references": {"order": "drawn"}}, "references.order", "'seeded' or 'arrival'"),
    ({"first": {"tau": 0.5}}, "first.tau", "less than or equal to 0"),
    (
        {"first": {"tau": -1}, "models": {**data()["models"], "a": LLAMA}},
        "first",
        "model 'a' is the first proposer and has speculation",
    ),
]


@pytest.mark.parametrize(("parts", "where", "words"), REFUSED)
def test_what_can_never_work_is_refused_by_name(parts: dict[str, Any], where: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(data(**parts))
    told = [
        (".".join(map(str, problem.where)), problem.message)
        for error in caught.value.errors()
        for problem in error.get("ctx", {}).get("problems", ())
    ]
    told += [(".".join(map(str, error["loc"])), error["msg"]) for error in caught.value.errors()]
    assert any(place.startswith(where) and words in message for place, message in told), told


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ("{regex: '('}", "aggregator.answer.regex: this is no regular expression of Python: missing )"),
        ("{regex: a, flags: i}", "aggregator.answer.flags: this key is not known here"),
        ("{}", "aggregator.answer.regex: this key is required"),
        (
            "{regex: '(a+)+$'}",
            "aggregator.answer.regex: this runs for hours on a text that it does not",
        ),
        ("{regex: 1}", "aggregator.answer.regex: this has to be text, not 1"),
    ],
)
def test_a_wrong_expression_is_told_once_and_under_the_recipes_own_keys(answer: str, line: str) -> None:
    text = (
        "name: mix\nmodels: {a: {engine: scripted}}\nlayers: [{proposers: [{model: a, samples: 3}]}]\n"
        f"aggregator: {{model: a, method: vote, answer: {answer}}}\n"
    )
    with pytest.raises(RecipeError) as caught:
        parse(text, folder=Path())
    assert str(caught.value).count("\n") == 0
    assert line in str(caught.value)


FINE = [
    overlapping(SCRIPTED | {"concurrency": 2}),
    overlapping(SCRIPTED | {"replicas": {"min": 1, "max": 3}}, True),
    overlapping(SCRIPTED | {"concurrency": 1, "replicas": 2}, "auto"),
    overlapping(ELSEWHERE, False),
    {"references": {"order": "arrival"}},
    aggregator(method="vote", answer="number"),
    aggregator(method="select", margin=0),
    {**layers(9), **aggregator(method="select")},
    {**layers(6), **aggregator(guard=True)},
    aggregator(guard=True, answer="number"),
    layers(2, 2, see=2),
    {"exit": {"answer": {"regex": "x"}, "agree": 3, "of_models": 3, "judge": True}},
    {**layers(3), "exit": {"answer": "boxed", "of_models": 1}},
    {"first": {"tau": -0.2, "calibrated_on": "gsm8k"}},
]


@pytest.mark.parametrize("parts", FINE)
def test_what_can_work_is_taken_and_warned_of_in_nothing(parts: dict[str, Any]) -> None:
    recipe = Recipe.model_validate(data(**parts))
    assert contradictions(recipe) == []
    assert void_settings(recipe) == []
    assert Recipe.model_validate(recipe.model_dump()) == recipe


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"margin": 0.3}, "margin"),
        ({"answer": "number"}, "answer"),
        ({"method": "vote", "answer": "number", "margin": 0.1}, "margin"),
        ({"method": "select", "guard": True}, "guard"),
    ],
)
def test_a_setting_of_another_method_is_warned_of(settings: dict[str, Any], where: str) -> None:
    [problem] = void_settings(Recipe.model_validate(data(**aggregator(**settings))))
    assert problem.where == ("aggregator", where)


@pytest.mark.parametrize(
    ("parts", "calls", "at_once"),
    [
        ({}, 4, 1),
        (aggregator(method="vote", answer="number"), 4, 1),
        (aggregator(method="select"), 3 + 3, 3),
        (aggregator(method="select_or_merge"), 3 + 3 + 1, 3),
        (aggregator(guard=True), 3 + 3 + 1, 3),
        (aggregator(method="select_or_merge", guard=True), 3 + 3 + 1 + 1, 4),
        ({**layers(5), **aggregator(method="select")}, 5 + 2, 2),
        ({"exit": {"answer": "number", "judge": True}}, 4, 1),
    ],
)
def test_how_many_calls_an_answer_takes(parts: dict[str, Any], calls: int, at_once: int) -> None:
    recipe = Recipe.model_validate(data(**parts))
    assert recipe.calls_per_answer() == calls
    assert recipe.calls_per_answer("z") == calls - recipe.samples[0]
    assert recipe.calls_at_once("mix")["z"] == at_once
    assert recipe.capacity_per_replica("z") >= at_once


def test_a_judge_that_proposes_too_has_its_calls_side_by_side() -> None:
    recipe = Recipe.model_validate(
        data(aggregator={"model": "a"}, exit={"answer": "number", "judge": True})
    )
    assert recipe.calls_at_once("mix") == {"a": 2, "b": 1, "c": 1}


@pytest.mark.parametrize("count", [0, 1])
def test_one_proposal_is_compared_with_nothing(count: int) -> None:
    assert short_calls("select", count, guard=True) == 0


def test_a_queue_below_a_pick_is_refused() -> None:
    parts = {**aggregator(method="select"), "limits": {"queue": 0}}
    models = {**data()["models"], "z": {"engine": "scripted", "concurrency": 2}}
    [problem] = contradictions(Recipe.model_validate(data(**parts, models=models)))
    assert problem.where == ("limits", "queue")
    assert "3 calls of model 'z' at once" in problem.message


def test_a_first_member_makes_a_layer_last_longer() -> None:
    slow = {"engine": "scripted", "first_token_s": 10, "token_s": 0, "tokens": 2}
    models = dict.fromkeys("abcz", slow)
    recipe = Recipe.model_validate(data(models=models))
    assert [time.end_s for time in layer_times(recipe, recipe.layers[0])] == [10, 10, 10]
    recipe = Recipe.model_validate(data(models=models, first={"tau": -1}))
    assert [time.end_s for time in layer_times(recipe, recipe.layers[0])] == [10, 20, 20]
