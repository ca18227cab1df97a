"""One model that answers alone, without proposals."""

import pytest

from actors.engine import Delta, Message, merge
from configs.errors import ContextTooLong, DeadlineExceeded, EngineError
from configs.schema import Sampling
from serve_app.mixture import moa
from serve_app.mixture.events import AnswerDelta, AnswerDone, Event, Started
from tests.unit.scripts import Script
from tests.unit.serve_app.mixture.conftest import QUESTION, Mixture

pytestmark = pytest.mark.virtual_time


async def _direct(mixture: Mixture, *, context_tokens: int = 4096) -> list[Event]:
    recipe = mixture.recipe(context_tokens={"a": context_tokens})
    question = [Message(role="user", content="word " * 300)]
    return [e async for e in moa.direct(question, recipe, mixture.models, "a", Sampling())]


async def test_a_model_asked_directly_answers_with_all_that_it_wrote(mixture: Mixture) -> None:
    mixture.models.scripts["a"] = [" \n", Delta(reasoning="hm"), "text "]
    events = await _direct(mixture)
    whole = merge([event.delta for event in events if isinstance(event, AnswerDelta)])
    assert (whole.text, whole.reasoning) == (" \ntext ", "hm")
    assert mixture.models.calls("a")[0].messages == [Message(role="user", content="word " * 300)]


async def test_a_model_asked_directly_may_answer_nothing(mixture: Mixture) -> None:
    mixture.models.scripts["a"] = []
    events = await _direct(mixture)
    assert [e.delta.text for e in events if isinstance(e, AnswerDelta)] == []


async def test_a_model_asked_directly_counts_as_direct(mixture: Mixture) -> None:
    [*_, done] = await _direct(mixture)
    assert isinstance(done, AnswerDone)
    [call] = done.summary.calls
    assert (call.model, call.role, call.prompt_tokens, call.completion_tokens) == (
        "a",
        "direct",
        304,
        2,
    )


@pytest.mark.parametrize(("seed", "shown"), [(7, 7), (None, 0)])
async def test_a_model_asked_directly_names_its_sampling_seed(
    mixture: Mixture, seed: int | None, shown: int
) -> None:
    events = moa.direct(QUESTION, mixture.recipe(), mixture.models, "a", Sampling(seed=seed))
    started, *_, done = [event async for event in events]
    assert started == Started(shown)
    assert isinstance(done, AnswerDone)
    assert done.summary.seed == shown
    assert [call.seed for call in done.summary.calls] == [seed]


@pytest.mark.parametrize("script", [[EngineError("boom")], [None]])
async def test_a_model_asked_directly_fails_before_any_other_event(
    mixture: Mixture, script: Script
) -> None:
    """The API opens its stream with the second event; a later error could not set the HTTP status."""
    mixture.models.scripts["a"] = script
    events = moa.direct([], mixture.recipe(), mixture.models, "a", Sampling())
    assert isinstance(await anext(events), Started)
    with pytest.raises((EngineError, DeadlineExceeded)):
        await anext(events)


async def test_a_conversation_too_long_for_a_model_asked_directly_is_refused(
    mixture: Mixture,
) -> None:
    with pytest.raises(
        ContextTooLong, match=r"length is 800 .* requested 816 tokens \(304 .*: 16 too many"
    ) as caught:
        await _direct(mixture, context_tokens=800)
    assert caught.value.param == "max_tokens"  # 512, more than the messages
    assert mixture.models.asked == []


async def test_counting_the_tokens_of_a_model_asked_directly_has_the_deadline_too(
    mixture: Mixture,
) -> None:
    mixture.models.counting["a"] = None
    with pytest.raises(DeadlineExceeded):
        await _direct(mixture, context_tokens=800)
