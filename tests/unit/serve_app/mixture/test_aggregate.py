"""The aggregator: its fallbacks, its time limits, and what the events say of them."""

import asyncio
from typing import Any

import pytest

from actors.engine import Delta, Message
from configs.errors import (
    BadRequest,
    ContextTooLong,
    EngineError,
    EngineUnavailable,
    Overloaded,
)
from serve_app.mixture import moa
from serve_app.mixture.events import AnswerDelta, AnswerDone, Event
from tests.unit.scripts import Script, Step
from tests.unit.serve_app.mixture.conftest import QUESTION, Mixture

pytestmark = pytest.mark.virtual_time

FALLBACKS = {"fallbacks": ["y"], "first_token_timeout_s": 10}


async def test_the_answer_is_streamed_as_it_comes(mixture: Mixture) -> None:
    mixture.models.scripts["z"] = [1.0, "one ", 1.0, "two"]
    outcome = await mixture.answer()
    deltas = [e.delta.text for e in outcome.events if isinstance(e, AnswerDelta)]
    assert deltas == ["one ", "two", ""]
    assert outcome.summary.answered.first_s == 1
    assert [(s.stage, s.seconds) for s in outcome.summary.stages] == [("layer 1", 0), ("aggregator", 2)]


async def test_an_answer_leaves_no_timer_behind(mixture: Mixture) -> None:
    await mixture.answer(mixture.recipe(aggregator={"first_token_timeout_s": 10}))
    timers: Any = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    assert [timer for timer in timers if not timer.cancelled()] == []


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ([EngineError("boom")], "engine_error"),
        ([EngineUnavailable("dead")], "engine_unavailable"),
        ([Overloaded("full")], "overloaded"),
        ([RuntimeError("a defect")], "internal_error"),
        ([None], "deadline_exceeded"),
        ([], "empty"),
        ([" \n"], "empty"),
        (["\u200b", "\u2060"], "empty"),
        ([" \n", EngineError("boom")], "engine_error"),
        ([Delta(reasoning="hm")], "only_reasoning"),
        ([Delta(reasoning="hm"), EngineError("boom")], "engine_error"),
    ],
)
@pytest.mark.parametrize("fallback", [True, False])
async def test_an_aggregator_that_writes_no_text_is_replaced(
    mixture: Mixture, script: Script, cause: str, fallback: bool
) -> None:
    mixture.models.scripts |= {"z": script, "y": ["from y"]}
    aggregator = FALLBACKS if fallback else {"first_token_timeout_s": 10}
    outcome = await mixture.answer(mixture.recipe(aggregator=aggregator))
    answered = outcome.summary.answered
    assert outcome.missing == [(0, "z", cause)]
    assert outcome.summary.degraded
    if fallback:
        assert (answered.model, answered.fallback) == ("y", "aggregator")
        assert outcome.text == "from y"
        assert mixture.models.calls("y")[0].messages == mixture.models.calls("z")[0].messages
    else:
        assert (answered.model, answered.fallback, answered.call) == ("a", "reference", None)
        assert outcome.text == "from a"


async def test_a_defect_that_costs_an_aggregator_its_attempt_is_logged_without_its_text(
    mixture: Mixture, caplog: pytest.LogCaptureFixture
) -> None:
    mixture.models.scripts["z"] = [RuntimeError("words of a user")]
    await mixture.answer()
    assert "aggregator z" in caplog.text
    assert "RuntimeError" in caplog.text
    assert "words of a user" not in caplog.text


async def test_the_first_token_timeout_counts_reasoning_and_ends_with_it(mixture: Mixture) -> None:
    mixture.models.scripts |= {"z": [9.0, Delta(reasoning="hm"), 50.0, "late text"], "y": ["from y"]}
    outcome = await mixture.answer(mixture.recipe(aggregator=FALLBACKS))
    assert outcome.text == "late text"
    assert outcome.summary.answered.first_s == 9
    assert mixture.models.calls("y") == []


async def test_an_aggregator_late_with_its_first_token_is_cancelled(mixture: Mixture) -> None:
    mixture.models.scripts |= {"z": [11.0, "too late"], "y": [9.0, "from y"]}
    outcome = await mixture.answer(mixture.recipe(aggregator=FALLBACKS))
    assert outcome.text == "from y"
    assert mixture.models.calls("z")[0].ended == "closed"
    assert outcome.seconds == 19


async def test_if_every_aggregator_fails_the_most_trusted_reference_answers(mixture: Mixture) -> None:
    mixture.models.scripts |= {"a": [5.0, "from a"], "z": [EngineError("1")], "y": [EngineError("2")]}
    outcome = await mixture.answer(mixture.recipe(aggregator=FALLBACKS))
    assert outcome.missing == [(0, "z", "engine_error"), (0, "y", "engine_error")]
    assert (outcome.summary.answered.model, outcome.text) == ("a", "from a")


async def test_a_reference_keeps_its_own_finish_reason(mixture: Mixture) -> None:
    mixture.models.scripts["z"] = [EngineError("boom")]
    mixture.models.finish_reason = "length"
    assert (await mixture.answer()).summary.answered.finish_reason == "length"


async def test_the_reference_of_a_dropped_proposer_does_not_answer(mixture: Mixture) -> None:
    mixture.models.scripts |= {"a": [EngineError("1")], "z": [EngineError("2")]}
    assert (await mixture.answer()).text == "from b"


@pytest.mark.parametrize("error", [EngineError("boom"), RuntimeError("a defect")])
async def test_a_failure_after_the_first_text_is_an_error(mixture: Mixture, error: Exception) -> None:
    mixture.models.scripts |= {"z": ["half an ", error], "y": ["from y"]}
    events: list[Event] = []

    async def read() -> None:
        recipe = mixture.recipe(aggregator=FALLBACKS)
        async for event in moa.answer([], recipe, mixture.models):
            events.append(event)

    with pytest.raises(type(error), match=str(error)):
        await read()
    assert [e.delta.text for e in events if isinstance(e, AnswerDelta)] == ["half an "]
    assert mixture.models.calls("y") == []


async def test_the_deadline_cuts_an_answer_that_has_begun(mixture: Mixture) -> None:
    mixture.models.scripts |= {"z": ["half an ", None], "y": ["from y"]}
    outcome = await mixture.answer(mixture.recipe(aggregator=FALLBACKS))
    answered = outcome.summary.answered
    assert outcome.text == "half an "
    assert (answered.model, answered.cut, answered.finish_reason) == ("z", True, "length")
    assert outcome.summary.degraded
    assert "z" not in {call.model for call in outcome.summary.calls}
    assert outcome.seconds == 100
    assert mixture.models.calls("z")[0].ended == "closed"
    assert mixture.models.calls("y") == []


async def test_an_answer_that_never_pauses_is_cut_for_a_slow_reader(mixture: Mixture) -> None:
    mixture.models.scripts["z"] = ["more "] * 500
    read = 0
    async for event in moa.answer(QUESTION, mixture.recipe(), mixture.models):
        if isinstance(event, AnswerDelta):
            read += 1
            await asyncio.sleep(1)
    assert isinstance(event, AnswerDone)
    assert event.summary.answered.cut
    assert read == 100


async def test_reasoning_until_the_deadline_is_no_answer(mixture: Mixture) -> None:
    mixture.models.scripts["z"] = [Delta(reasoning="hm"), None]
    outcome = await mixture.answer()
    assert (outcome.text, outcome.summary.answered.fallback) == ("from a", "reference")
    assert outcome.seconds == 100


async def test_if_the_layers_use_up_the_deadline_the_best_reference_answers_at_once(
    mixture: Mixture,
) -> None:
    mixture.models.scripts |= {"b": [None], "c": ["from c"], "y": ["from y"]}
    mixture.models.closing_s = 90  # an engine that is slow to let go costs the next layers their time
    recipe = mixture.recipe(["a", "b"], ["c"], aggregator=FALLBACKS)
    outcome = await mixture.answer(recipe)
    assert outcome.text == "from a"
    assert outcome.missing == [
        (1, "b", "late"),
        (2, "c", "late"),
        (0, "z", "deadline_exceeded"),
        (0, "y", "deadline_exceeded"),
    ]
    assert {asked.model for asked in mixture.models.asked} == {"a", "b"}


async def test_a_conversation_too_long_for_the_aggregator_is_refused_before_any_call(
    mixture: Mixture,
) -> None:
    long = [Message(role="user", content="word " * 900)]
    recipe = mixture.recipe(context_tokens={"z": 1400}, references={"prompt": "Merge these:"})
    with pytest.raises(ContextTooLong) as caught:
        await mixture.answer(recipe, long)
    # 904 for the user's message, 14 for the frame around two references, 64 for their texts
    assert caught.value.message == (
        "This model's maximum context length is 1400 tokens. However, you requested 1494 tokens (918 "
        "in the messages, 512 in the completion, 64 in references): 94 too many for model 'z'. Please "
        "reduce the length of the messages or completion."
    )
    assert (caught.value.model, caught.value.param) == ("z", "messages")
    assert mixture.models.asked == []


@pytest.mark.parametrize("over", [0, 1])
async def test_a_conversation_that_passes_the_first_check_fits_the_aggregator(
    mixture: Mixture, over: int
) -> None:
    """904 + 14 + 64 + 512 tokens, as in the test above."""
    mixture.models.scripts |= {"a": ["word " * 500], "b": ["word " * 500]}
    long = [Message(role="user", content="word " * 900)]
    recipe = mixture.recipe(context_tokens={"z": 1494 - over}, references={"prompt": "Merge these:"})
    if over:
        with pytest.raises(BadRequest, match=": 1 too many"):
            await mixture.answer(recipe, long)
    else:
        outcome = await mixture.answer(recipe, long)
        assert outcome.text == "the answer"
        assert [(t.layer, t.tokens_removed) for t in outcome.summary.trimmed] == [(0, 2 * (500 - 32))]
        assert not outcome.summary.degraded


async def test_a_fallback_with_a_smaller_context_gets_shorter_references(mixture: Mixture) -> None:
    mixture.models.scripts |= {"a": ["word " * 400], "z": [EngineError("boom")], "y": ["from y"]}
    recipe = mixture.recipe(aggregator=FALLBACKS, context_tokens={"y": 900})
    outcome = await mixture.answer(recipe)
    assert outcome.text == "from y"
    assert [(t.layer, t.model) for t in outcome.summary.trimmed] == [(0, "y")]
    assert mixture.models.calls("z")[0].text.count("word") == 400


async def test_a_fallback_that_cannot_hold_the_conversation_is_passed_over(mixture: Mixture) -> None:
    mixture.models.scripts |= {"z": [EngineError("boom")], "y": ["from y"]}
    recipe = mixture.recipe(aggregator=FALLBACKS, context_tokens={"y": 520})
    outcome = await mixture.answer(recipe, [Message(role="user", content="word " * 300)])
    assert outcome.missing == [(0, "z", "engine_error"), (0, "y", "context_length_exceeded")]
    assert outcome.text == "from a"
    assert mixture.models.calls("y") == []


@pytest.mark.parametrize("counting", [None, EngineUnavailable("dead"), EngineError("no tokenizer")])
async def test_an_aggregator_that_cannot_count_does_not_refuse_the_request(
    mixture: Mixture, counting: Step
) -> None:
    mixture.models.scripts["y"] = ["from y"]
    mixture.models.counting["z"] = counting
    recipe = mixture.recipe(aggregator=FALLBACKS, context_tokens={"z": 600}, keepalive_s=5)
    outcome = await mixture.answer(recipe)
    assert (outcome.text, outcome.summary.answered.model) == ("from y", "y")
    assert outcome.seconds == (
        15 if counting is None else 0
    )  # 5 before the start, 10 for a first token
