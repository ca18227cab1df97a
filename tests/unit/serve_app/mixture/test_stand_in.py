"""A proposal that stands in keeps the request's limits, and a filtered answer is not hidden."""

from typing import Any

import pytest

from actors.engine import Delta
from configs.errors import ContentFiltered, EngineError, EngineUnavailable, TemplateRefused
from configs.schema import Sampling
from serve_app.mixture.answer_form import not_held, of_fallback
from serve_app.mixture.events import Answered
from tests.unit.serve_app.mixture.conftest import Mixture, Outcome

pytestmark = pytest.mark.virtual_time

TEN = "one two three four five six seven eight nine ten"


async def answer(mixture: Mixture, **sampling: Any) -> Outcome:
    """The first proposal stands in for the aggregator, which fails."""
    mixture.models.scripts |= {"a": [TEN], "z": [EngineError("boom")]}
    outcome = await mixture.answer(sampling=Sampling(**sampling))
    assert outcome.summary.answered.fallback == "reference"
    return outcome


@pytest.mark.parametrize(
    ("sampling", "text", "reason"),
    [
        ({}, TEN, "stop"),
        ({"max_tokens": 10}, TEN, "stop"),
        ({"max_tokens": 100}, TEN, "stop"),
        ({"max_tokens": 3}, "one two three", "length"),
        ({"max_tokens": 1}, "one", "length"),
        ({"stop": [" four", "seven"]}, "one two three", "stop"),
        ({"stop": ["seven", " four"]}, "one two three", "stop"),
        ({"stop": ["eleven"]}, TEN, "stop"),
        ({"stop": [" four"], "max_tokens": 2}, "one two", "length"),
        ({"stop": [" four"], "max_tokens": 3}, "one two three", "stop"),
        ({"stop": ["one"]}, "", "stop"),
    ],
    ids=str,
)
async def test_the_requests_limits_hold_for_a_proposal_that_stands_in(
    mixture: Mixture, sampling: dict[str, Any], text: str, reason: str
) -> None:
    outcome = await answer(mixture, **sampling)
    assert (outcome.text, outcome.summary.answered.finish_reason) == (text, reason)


@pytest.mark.parametrize("counting", [EngineUnavailable("gone"), None], ids=["fails", "hangs"])
async def test_without_a_count_all_tokens_are_equally_long(mixture: Mixture, counting: Any) -> None:
    def fails(_: Any) -> list[Any]:
        mixture.models.counting["a"] = counting  # from now on
        return [EngineError("boom")]

    mixture.models.scripts |= {"a": [TEN], "z": fails}
    outcome = await mixture.answer(sampling=Sampling(max_tokens=5))
    assert outcome.summary.answered.fallback == "reference"
    assert outcome.summary.answered.finish_reason == "length"
    assert outcome.text == TEN[: len(TEN) // 2]
    assert outcome.seconds <= 1


async def test_past_the_deadline_nothing_is_counted(mixture: Mixture) -> None:
    mixture.models.scripts |= {"a": [TEN], "z": [None]}
    recipe = mixture.recipe(deadline_s=20, layer_deadline_s=10)
    outcome = await mixture.answer(recipe, sampling=Sampling(max_tokens=5))
    assert outcome.seconds == 20
    assert (outcome.text, outcome.summary.answered.finish_reason) == (TEN[: len(TEN) // 2], "length")


JSON = {"structure": {"json_object": True}}
SCHEMA = {"structure": {"json_schema": {"type": "object"}}}


@pytest.mark.parametrize(
    ("extra", "proposals", "text", "unheld"),
    [
        (JSON, ["prose", "{}"], "{}", ()),
        (JSON, ["prose", "[1]"], "prose", ("structure",)),
        (SCHEMA, ["prose", '{"a": 1}'], '{"a": 1}', ("structure",)),  # nobody has run the schema
        ({"structure": {"choice": ["yes", "no"]}}, ["yes, I think", "no"], "no", ()),
        ({"structure": {"regex": "(a*)*b"}}, ["x", "y"], "x", ("structure",)),
        ({"bad_words": ["pros"]}, ["prose", "{}"], "prose", ("bad_words",)),
        ({"bad_words": ["verse"], "logit_bias": {"7": 1}}, ["prose", "{}"], "prose", ("logit_bias",)),
        ({"min_tokens": 3}, ["prose", "{}"], "prose", ()),  # no constraint
    ],
    ids=str,
)
async def test_a_proposal_that_stands_in_has_the_form_or_says_that_it_may_not(
    mixture: Mixture, extra: dict[str, Any], proposals: list[str], text: str, unheld: tuple[str, ...]
) -> None:
    mixture.models.scripts |= {"a": [proposals[0]], "b": [proposals[1]], "z": [EngineError("boom")]}
    outcome = await mixture.answer(sampling=Sampling(extra=extra))
    answered = outcome.summary.answered
    assert (outcome.text, answered.fallback, answered.unheld) == (text, "reference", unheld)
    assert outcome.summary.degraded


async def test_a_fallback_says_what_its_engine_could_not_hold_it_to(mixture: Mixture) -> None:
    mixture.models.scripts |= {"y": ["not JSON"], "z": [EngineError("boom")]}
    recipe = mixture.recipe(aggregator={"fallbacks": ["y"]})
    outcome = await mixture.answer(recipe, sampling=Sampling(extra=JSON | {"logit_bias": {"7": 1}}))
    answered = outcome.summary.answered
    assert (answered.model, answered.fallback) == ("y", "aggregator")
    assert answered.unheld == ("structure", "logit_bias")


async def test_an_aggregator_that_answers_itself_is_held_to_everything(mixture: Mixture) -> None:
    outcome = await mixture.answer(sampling=Sampling(extra=JSON))
    assert outcome.summary.answered.unheld == ()


def test_a_fallback_gets_no_numbers_of_another_models_tokens() -> None:
    extra = JSON | {"logit_bias": {"7": 1}, "stop_token_ids": [1], "allowed_token_ids": [2]}
    assert of_fallback(Sampling(extra=extra)) == Sampling(extra=JSON)
    vllm, llamacpp = ("vllm", ("logit_bias",)), ("llamacpp", ("structure", "logit_bias"))
    asked = Sampling(extra={"structure": {"regex": "a"}, "logit_bias": {"7": 1}})
    for engine, unheld in (vllm, llamacpp):
        assert not_held(asked, "b", engine) == unheld


FILTERED = Delta(finish_reason="content_filter")


@pytest.mark.parametrize("script", [["half ", FILTERED], [FILTERED]], ids=["with text", "without"])
@pytest.mark.parametrize("proposals", [True, False])
async def test_a_filtered_proposal_is_dropped_with_that_cause(
    mixture: Mixture, script: list[Any], proposals: bool
) -> None:
    mixture.models.scripts["a"] = script
    outcome = await mixture.answer(stream_proposals=proposals)
    assert outcome.missing == [(1, "a", "content_filter")]
    assert outcome.proposals == ["from b"]
    assert "filter" in outcome.summary.missing[0].detail
    assert [call.model for call in outcome.summary.calls] == ["a", "b", "z"]


async def test_if_all_proposals_are_filtered_the_request_is_at_fault(mixture: Mixture) -> None:
    mixture.models.scripts |= {"a": [FILTERED], "b": [ContentFiltered("no")]}
    with pytest.raises(ContentFiltered) as failure:
        await mixture.answer()
    assert (failure.value.status, failure.value.code) == (400, "content_filter")


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_aggregators_filtered_answer_says_so(mixture: Mixture, streamed: bool) -> None:
    mixture.models.scripts["z"] = ["half ", FILTERED]
    outcome = await mixture.answer(streamed=streamed)
    assert (outcome.text, outcome.summary.answered.finish_reason) == ("half ", "content_filter")


async def test_a_filtered_aggregator_without_text_is_missing_with_that_cause(mixture: Mixture) -> None:
    mixture.models.scripts["z"] = [FILTERED]
    outcome = await mixture.answer()
    assert outcome.missing == [(0, "z", "content_filter")]
    answered = outcome.summary.answered
    assert isinstance(answered, Answered)
    assert (outcome.text, answered.fallback, answered.finish_reason) == ("from a", "reference", "stop")


async def test_a_fallback_answers_where_the_aggregators_template_refuses(mixture: Mixture) -> None:
    refusal = TemplateRefused("roles must alternate")
    mixture.models.counting["z"] = refusal
    mixture.models.scripts |= {"z": [refusal], "y": ["from y"]}
    outcome = await mixture.answer(mixture.recipe(aggregator={"fallbacks": ["y"]}))
    assert outcome.missing == [(0, "z", "template_refused")]
    assert outcome.text == "from y"


async def test_if_every_template_refuses_the_conversation_is_at_fault(mixture: Mixture) -> None:
    refusal = TemplateRefused("roles must alternate")
    mixture.models.scripts |= {"a": [refusal], "b": [refusal], "z": [refusal]}
    with pytest.raises(TemplateRefused, match="roles must alternate") as failure:
        await mixture.answer()
    assert failure.value.status == 400
