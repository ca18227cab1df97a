"""Limits that contradict each other: each is told just beyond its limit, and not at it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.limit_checks import cautions
from configs.load import RecipeError, parse, presets, read
from configs.problem import Problem
from configs.schema import Recipe
from configs.void_settings import void_settings

Change = tuple[str, Any]
REMOTE = {"engine": "openai_http", "base_url": "http://h/v1", "model": "m", "context_tokens": 8192}
LLAMA = {"engine": "llamacpp", "weights": [{"path": "a.gguf"}], "context_tokens": 8192}
VLLM = {"engine": "vllm", "weights": [{"path": "a"}], "context_tokens": 8192}


def recipe(*changes: Change) -> dict[str, Any]:
    """A recipe without a contradiction, changed at paths that are written with dots."""
    data: dict[str, Any] = {
        "name": "mix",
        "models": {
            "a": {"engine": "scripted", "context_tokens": 8192, "concurrency": 2},
            "r": dict(REMOTE),
            "l": dict(LLAMA),
            "v": dict(VLLM),
        },
        "layers": [{"proposers": [{"model": "a", "samples": 3}, {"model": "r"}]}],
        "aggregator": {"model": "r", "sampling": {"max_tokens": 512}},
        "limits": {"deadline_s": 100, "layer_deadline_s": 40},
    }
    for path, value in changes:
        here: Any = data
        *steps, last = path.split(".")
        for step in steps:
            here = here[int(step)] if isinstance(here, list) else here.setdefault(step, {})
        here[last] = value
    return data


def refusals(*changes: Change) -> tuple[Problem, ...]:
    try:
        parse(yaml.safe_dump(recipe(*changes)), folder=Path("/f"))
    except RecipeError as error:
        return error.problems
    return ()


def found(*changes: Change) -> list[Problem]:
    made = Recipe.model_validate(recipe(*changes))
    return [*cautions(made), *void_settings(made)]


PROPOSER = "layers.0.proposers.0"
SECOND = "layers.0.proposers.1"
SECOND_MODEL = f"{SECOND}.model"


@pytest.mark.parametrize(
    ("change", "at", "words", "fine"),
    [
        (("limits.queue", 0), "limits.queue", "an answer makes 3 calls of model 'a' at once", 1),
        (
            ("models.a.context_tokens", 512),
            "layers.0.proposers.0.sampling.max_tokens",
            "512 tokens of answer leave a prompt no room in model 'a', which holds 512",
            1200,
        ),
        (
            ("models.r.context_tokens", 512 + 4 * 32),
            "aggregator",
            "and 512 of answer and reasoning leave 128 for 4 references",
            8192,
        ),
        (
            ("limits.layer_deadline_s", 100),
            "limits.layer_deadline_s",
            "set layer_deadline_s to about 50, or raise deadline_s",
            99,
        ),
        (("limits.quorum", 5), "limits.quorum", "which gives 4; give 4 at most", 4),
        (
            ("layers.0.proposers.1.sampling", {"extra": {"min_tokens": 600}}),
            "layers.0.proposers.1.sampling.extra.min_tokens",
            "600 is above max_tokens, which is 512; give less",
            {"extra": {"min_tokens": 512}},
        ),
        (
            ("layers.0.proposers.1.sampling", {"extra": {"structure": {"regex": "a"}}}),
            "layers.0.proposers.1.sampling.extra.structure",
            "cannot hold answers to this form (it can: json_object, json_schema)",
            {"extra": {"structure": {"json_object": True}}},
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_can_never_be_is_refused(change: Change, at: str, words: str, fine: Any) -> None:
    first = refusals(change)[0]
    assert ".".join(map(str, first.where)) == at
    assert words in first.message
    assert refusals((change[0], fine)) == ()


CAUTIONS: list[tuple[list[Change], str, str, list[Change]]] = [
    (
        [("layers.0.proposers.0.model", "l"), ("limits.queue", 1), ("models.l.concurrency", 2)],
        "limits.queue",
        "all 3 calls that an answer makes of it wait, and only 1 may (queue); set queue to 3 or more",
        [("layers.0.proposers.0.model", "l"), ("limits.queue", 3)],
    ),
    (
        [("models.a.context_tokens", 600)],
        PROPOSER,
        "max_tokens leaves 88 for the question",
        [("models.a.context_tokens", 640)],
    ),
    (
        [("models.r.context_tokens", 1500), (SECOND_MODEL, "v")],
        "aggregator",
        "for each of 4 references, which may have 512 (max_tokens of the proposers), so they are cut",
        [("models.r.context_tokens", 2048), (SECOND_MODEL, "v")],
    ),
    (
        [("models.a.first_token_s", 25)],
        PROPOSER,
        "model 'a' needs 50.092 s for this layer, so its proposal is always late",
        [("models.a.first_token_s", 19)],
    ),
    (
        [("limits.grace_s", 0.5), ("models.a.first_token_s", 1)],
        "limits.grace_s",
        "the proposal of 'a' (proposer 1) is always dropped; set grace_s above",
        [("limits.grace_s", 3), ("models.a.first_token_s", 1)],
    ),
    (
        [("aggregator.model", "a"), ("models.a.token_s", 3)],
        "limits.deadline_s",
        "s end an answer before it is complete, because it takes",
        [("aggregator.model", "a")],
    ),
    (
        [("aggregator", {"model": "a", "first_token_timeout_s": 0.05})],
        "aggregator.first_token_timeout_s",
        "before the first token of model 'a', which comes after 0.05 s",
        [("aggregator", {"model": "a", "first_token_timeout_s": 0.06})],
    ),
    (
        [("models.a.tokens", 0)],
        PROPOSER,
        "the script of model 'a' is empty here",
        [("models.a.tokens", 1)],
    ),
    ([("models.a.fail_share", 0.1)], "models.a.fail_share", "0.1 of this model's calls fail on", []),
    (
        [("access.allowance.tokens_per_minute", 2559)],
        "access.allowance.tokens_per_minute",
        "2559 is below one answer, whose calls write up to 2560 tokens together",
        [("access.allowance.tokens_per_minute", 2560)],
    ),
    (
        [("access.allowance.max_tokens", 511)],
        "access.allowance.max_tokens",
        "511 cuts every answer short of the aggregator's max_tokens, 512",
        [("access.allowance.max_tokens", 512)],
    ),
    (
        [("access.allowance.concurrency", 3)],
        "access.allowance.concurrency",
        "3 answers at a time are never reached: model 'a' runs and queues 8 calls, enough for 2",
        [("access.allowance.concurrency", 2)],
    ),
    (
        [("limits.max_body_bytes", 32767)],
        "limits.max_body_bytes",
        "32767 bytes refuse conversations that model 'r' could hold",
        [("limits.max_body_bytes", 32768)],
    ),
    (
        [(f"{PROPOSER}.sampling", {"temperature": 0})],
        f"{PROPOSER}.samples",
        "3 samples at temperature 0 are copies of one another; set samples to 1, or a",
        [(f"{PROPOSER}.sampling", {"temperature": 0.1})],
    ),
    (
        [
            (f"{PROPOSER}.sampling", {"seed": 1}),
            (SECOND_MODEL, "a"),
            (f"{SECOND}.sampling", {"seed": 3}),
        ],
        f"{SECOND}.sampling.seed",
        "another proposer of this layer asks 'a' with seed 3 too",
        [
            (f"{PROPOSER}.sampling", {"seed": 1}),
            (SECOND_MODEL, "a"),
            (f"{SECOND}.sampling", {"seed": 4}),
        ],
    ),
    (
        [("limits.grace_s", 5), ("limits.quorum", 4)],
        "limits.grace_s",
        "has no effect: the quorum, 4, is all proposals of each layer",
        [("limits.grace_s", 5), ("limits.quorum", 3)],
    ),
    ([("limits.grace_s", 0)], "limits.grace_s", "with 0, a layer ends as soon as it has 1 of 4", []),
    (
        [("limits.grace_s", 40)],
        "limits.grace_s",
        "40 s have no effect, because layer_deadline_s ends first, after 40 s",
        [("limits.grace_s", 39)],
    ),
    (
        [("models.r.read_timeout_s", 100)],
        "models.r.read_timeout_s",
        "100 s have no effect, because deadline_s ends first, after 100 s",
        [("models.r.read_timeout_s", 99)],
    ),
    (
        [("cards.patience_s", 40)],
        "cards.patience_s",
        "a proposer that waits so long for its turn is late, because layer_deadline_s is 40 s",
        [("cards.patience_s", 39)],
    ),
    (
        [(f"{SECOND}.sampling", {"thinking_tokens": 9, "reasoning_effort": "none"})],
        f"{SECOND}.sampling.thinking_tokens",
        "9 have no effect, because model 'r' is told not to think",
        [(f"{SECOND}.sampling", {"thinking_tokens": 9, "reasoning_effort": "low"})],
    ),
    (
        [("models.r.reasoning_format", "none"), (f"{SECOND}.sampling", {"thinking_tokens": 9})],
        f"{SECOND}.sampling.thinking_tokens",
        "reasoning_format of model 'r' is none",
        [("models.r.reasoning_format", "none")],
    ),
    (
        [(f"{SECOND}.sampling", {"reasoning_effort": "none", "template": {"enable_thinking": True}})],
        f"{SECOND}.sampling.reasoning_effort",
        "is 'none', and template says enable_thinking: true; the template wins",
        [(f"{SECOND}.sampling", {"template": {"enable_thinking": True}})],
    ),
    (
        [("models.r.omit", ["max_tokens"])],
        "aggregator.sampling.max_tokens",
        "never reaches the server, because model 'r' omits 'max_tokens' (omit)",
        [("models.r.omit", ["top_p"])],
    ),
    (
        [("models.r.omit", ["x"]), ("models.r.extra_body", {"x": 1})],
        "models.r.omit",
        "'x' is added to each request and left out of it (omit); choose one",
        [("models.r.omit", ["x"])],
    ),
    (
        [("models.v.kv_tokens", 8191)],
        "models.v.kv_tokens",
        "8191 are less than one context, 8192 tokens",
        [("models.v.kv_tokens", 8192)],
    ),
    (
        [("models.a.residency", "turns")],
        "models.a.residency",
        "has no effect: models of this engine take no card without weight_bytes",
        [("models.l.residency", "turns")],
    ),
    (
        [("access", {"open": True, "keys_file": "k"})],
        "access.open",
        "has no effect, because keys_file names API keys",
        [("access", {"open": True})],
    ),
    (
        [("access", {"metrics": "open", "metrics_keys": ["prometheus"]})],
        "access.metrics_keys",
        "has no effect with metrics: open; leave one of the two out",
        [("access", {"metrics_keys": ["prometheus"]})],
    ),
]


@pytest.mark.parametrize(
    ("changes", "at", "words", "fine"),
    CAUTIONS,
    ids=lambda v: v if isinstance(v, str) and " " not in v else "",
)
def test_what_makes_answers_poorer_or_has_no_effect_is_warned_of(
    changes: list[Change], at: str, words: str, fine: list[Change]
) -> None:
    assert found() == []
    told = {".".join(map(str, each.where)): each.message for each in found(*changes)}
    assert words in told.get(at, ""), told
    if fine:
        assert at not in [".".join(map(str, each.where)) for each in found(*fine)]


@pytest.mark.parametrize("preset", presets())
def test_presets_contradict_themselves_only_on_purpose(preset: str) -> None:
    told = read(preset).cautions
    assert all("on purpose" in line for line in told), told
    assert bool(told) is (preset == "scripted")


def test_a_warning_has_the_line_of_its_setting() -> None:
    assert (
        read("scripted").cautions[0].startswith("scripted:20: models.failing.fail_share: 0.2 of this")
    )
