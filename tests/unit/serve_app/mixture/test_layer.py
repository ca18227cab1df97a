"""A layer: quorum, grace, deadlines, and why a proposer is dropped."""

import asyncio
from contextlib import aclosing

import pytest

from actors.engine import Delta, Message
from configs.errors import (
    ContextTooLong,
    DeadlineExceeded,
    EngineError,
    EngineUnavailable,
    Overloaded,
    QuorumNotMet,
    RequestError,
)
from serve_app.mixture import moa
from serve_app.mixture.events import (
    Event,
    ProposalDelta,
    ProposalDone,
    ProposalDropped,
    ProposalThinks,
)
from tests.unit.scripts import Step
from tests.unit.serve_app.mixture.conftest import Mixture

pytestmark = pytest.mark.virtual_time


async def test_every_proposal_reaches_the_aggregator(mixture: Mixture) -> None:
    outcome = await mixture.answer()
    prompt = mixture.models.calls("z")[0].text
    assert ("from a" in prompt, "from b" in prompt) == (True, True)
    assert outcome.text == "the answer"
    assert not outcome.summary.degraded


async def test_proposers_of_a_layer_work_side_by_side(mixture: Mixture) -> None:
    mixture.models.scripts |= {"a": [10.0, "from a"], "b": [10.0, "from b"]}
    assert (await mixture.answer()).seconds == 10


ONLY_REASONING = "tokens on reasoning and wrote no answer; template: {enable_thinking: false} for the"
"""From what is said about a model that thought and did not answer."""


@pytest.mark.parametrize(
    ("script", "cause", "detail"),
    [
        ([EngineError("boom 42")], "engine_error", "boom 42"),
        (["half a ", EngineError("boom 42")], "engine_error", "boom 42"),
        ([EngineUnavailable("dead")], "engine_unavailable", "dead"),
        ([Overloaded("full")], "overloaded", "full"),
        ([RuntimeError("a defect")], "internal_error", "RuntimeError"),
        ([asyncio.CancelledError()], "engine_unavailable", "the call was cancelled"),
        ([None], "late", "was not done when the layer's time was up"),
        (["half a ", None], "late", "was not done when the layer's time was up"),
        ([], "empty", "the proposal has no text"),
        ([" \n"], "empty", "the proposal has no text"),
        (["\u200b", "\u2060"], "empty", "the proposal has no text"),
        (["<think>hm</think>"], "only_reasoning", ONLY_REASONING),
        (["<think>hm, and then"], "only_reasoning", ONLY_REASONING),
        ([Delta(reasoning="hm")], "only_reasoning", ONLY_REASONING),
    ],
)
async def test_a_proposer_without_a_proposal_is_dropped_and_named(
    mixture: Mixture, script: list[Step], cause: str, detail: str
) -> None:
    mixture.models.scripts["b"] = script
    outcome = await mixture.answer()
    [missing] = outcome.summary.missing
    assert (missing.layer, missing.model, missing.cause) == (1, "b", cause)
    assert detail in missing.detail
    assert outcome.summary.degraded
    assert outcome.proposals == ["from a"]
    prompt = mixture.models.calls("z")[0].text
    assert prompt.count("<response ") == 1
    assert prompt.count("from a") == 1
    assert not any(text in prompt for text in (detail, "half a", "hm"))


async def test_a_defect_that_costs_a_proposal_is_logged_without_its_text(
    mixture: Mixture, caplog: pytest.LogCaptureFixture
) -> None:
    mixture.models.scripts["b"] = [RuntimeError("words of a user")]
    await mixture.answer()
    assert "proposer b" in caplog.text
    assert "RuntimeError" in caplog.text
    assert "words of a user" not in caplog.text


async def test_reasoning_is_stripped_from_a_proposal(mixture: Mixture) -> None:
    mixture.models.scripts["b"] = [Delta(reasoning="r1"), "<think>r2</think>", "from b"]
    outcome = await mixture.answer()
    assert sorted(outcome.proposals) == ["from a", "from b"]
    assert not any(r in mixture.models.calls("z")[0].text for r in ("r1", "r2"))


async def test_without_grace_a_layer_waits_for_all_until_its_deadline(mixture: Mixture) -> None:
    mixture.models.scripts["b"] = [None]
    outcome = await mixture.answer(mixture.recipe(layer_deadline_s=30))
    assert outcome.seconds == 30
    assert mixture.models.calls("b")[0].ended == "closed"


@pytest.mark.parametrize(
    ("b_s", "c_s", "grace_s", "came", "at"),
    [
        (1.0, 2.0, 5.0, {"a", "b", "c"}, 2),
        (1.0, 7.0, 5.0, {"a", "b"}, 6),
        (4.0, 7.0, 5.0, {"a", "b", "c"}, 7),
        (4.0, 99.0, 5.0, {"a", "b"}, 9),  # the third proposal does not prolong the grace
        (4.0, 99.0, 0.0, {"a", "b"}, 4),
        (4.0, 99.0, 60.0, {"a", "b"}, 30),  # nor does grace prolong the deadline
    ],
)
async def test_grace_begins_with_the_quorum(
    mixture: Mixture, b_s: float, c_s: float, grace_s: float, came: set[str], at: float
) -> None:
    mixture.models.scripts |= {"b": [b_s, "from b"], "c": [c_s, "from c"]}
    outcome = await mixture.answer(mixture.recipe(["a", "b", "c"], quorum=2, grace_s=grace_s))
    assert {e.model for e in outcome.events if isinstance(e, ProposalDone)} == came
    assert outcome.missing == [(1, model, "late") for model in ("a", "b", "c") if model not in came]
    assert outcome.seconds == at


async def test_grace_is_counted_from_the_quorum_not_from_the_last_proposal(mixture: Mixture) -> None:
    mixture.models.scripts |= {"b": [3.0, "from b"], "c": [6.0, "from c"]}
    outcome = await mixture.answer(mixture.recipe(["a", "b", "c"], quorum=1, grace_s=5))
    assert outcome.missing == [(1, "c", "late")]
    assert outcome.seconds == 5


async def test_a_late_proposer_has_ended_before_the_aggregator_is_asked(mixture: Mixture) -> None:
    mixture.models.closing_s = 2
    mixture.models.scripts["b"] = ["half a ", None]
    mixture.models.scripts["z"] = lambda _: [f"b is {mixture.models.calls('b')[0].ended}"]
    assert (await mixture.answer()).text == "b is closed"


async def test_the_answers_deadline_ends_a_layer_that_has_time_left(mixture: Mixture) -> None:
    mixture.models.scripts["b"] = [None]
    mixture.models.closing_s = 15  # so that the third layer begins at 90 s
    outcome = await mixture.answer(mixture.recipe(["a", "b"], ["a", "b"], ["a", "b"]))
    seconds = [stage.seconds for stage in outcome.summary.stages]
    assert seconds == [30 + 15, 30 + 15, 10 + 15, 0]
    assert outcome.text == "from a"


async def test_a_layer_keeps_its_time_while_nobody_reads(mixture: Mixture) -> None:
    mixture.models.scripts["b"] = lambda _: [step for n in range(90) for step in (1.0, f"{n} ")]
    dropped: list[ProposalDropped] = []
    after_drop: list[ProposalDelta] = []
    async with aclosing(moa.answer([], mixture.recipe(), mixture.models)) as events:
        async for event in events:
            if isinstance(event, ProposalDelta):
                await asyncio.sleep(5)
                after_drop += [event] * len(dropped)
            elif isinstance(event, ProposalDropped):
                dropped.append(event)
    assert [d.missing.cause for d in dropped] == ["late"]
    assert after_drop == []


@pytest.mark.parametrize(
    ("a", "b", "error"),
    [
        (EngineError("one"), Overloaded("two"), QuorumNotMet),
        (EngineError("one"), EngineError("two"), QuorumNotMet),
        (Overloaded("one"), Overloaded("two"), Overloaded),
        (ContextTooLong("one"), ContextTooLong("two"), ContextTooLong),
    ],
)
async def test_the_first_layers_missed_quorum_is_an_error_that_names_each_cause(
    mixture: Mixture, a: RequestError, b: RequestError, error: type[RequestError]
) -> None:
    mixture.models.scripts |= {"a": [a], "b": [b]}
    with pytest.raises(RequestError) as caught:
        await mixture.answer()
    assert type(caught.value) is error
    assert caught.value.message == (
        f"1 proposals are needed and 0 came (a: {a.code}: one; b: {b.code}: two)"
    )
    assert caught.value.model == "a"
    assert caught.value.param == ("messages" if error is ContextTooLong else None)
    assert mixture.models.calls("z") == []


async def test_no_proposal_in_time_is_a_missed_deadline(mixture: Mixture) -> None:
    mixture.models.scripts |= {"a": [None], "b": [None]}
    with pytest.raises(DeadlineExceeded, match=r"0 came \(a: late.*b: late"):
        await mixture.answer()
    assert [asked.ended for asked in mixture.models.asked] == ["closed", "closed"]


async def test_a_later_layers_missed_quorum_keeps_the_last_references(mixture: Mixture) -> None:
    mixture.models.scripts |= {"c": ["from c"], "d": [EngineError("down")]}
    outcome = await mixture.answer(mixture.recipe(["a", "b"], ["c", "d"], quorum=2))
    prompt = mixture.models.calls("z")[0].text
    assert [text in prompt for text in ("from a", "from b", "from c")] == [True, True, False]
    assert outcome.text == "the answer"
    assert outcome.summary.degraded
    assert outcome.missing == [(2, "d", "engine_error"), (2, "c", "quorum_not_met")]
    assert outcome.summary.missing[-1].detail == (
        "1 of 2 proposals came, so the last layer's are used again"
    )


async def test_the_layer_after_a_missed_quorum_sees_the_last_references(mixture: Mixture) -> None:
    mixture.models.scripts |= {"c": [EngineError("down")], "d": ["from d"]}
    outcome = await mixture.answer(mixture.recipe(["a"], ["c"], ["d"]))
    assert "from a" in mixture.models.calls("d")[0].text
    assert "from d" in mixture.models.calls("z")[0].text
    assert outcome.missing == [(2, "c", "engine_error")]


async def test_a_proposer_that_cannot_hold_the_conversation_sits_out(mixture: Mixture) -> None:
    long = [Message(role="user", content="word " * 300)]
    recipe = mixture.recipe(context_tokens={"b": 600})
    outcome = await mixture.answer(recipe, long)
    assert outcome.missing == [(1, "b", "context_length_exceeded")]
    assert outcome.summary.missing[0].detail == (
        "This model's maximum context length is 600 tokens. However, you requested 816 tokens (304 in "
        "the messages, 512 in the completion): 216 too many for model 'b'. Please reduce the length of "
        "the messages or completion."
    )
    assert mixture.models.calls("b") == []
    assert outcome.text == "the answer"


async def test_references_too_long_for_a_proposer_are_trimmed_and_reported(mixture: Mixture) -> None:
    mixture.models.scripts |= {"a": ["word " * 400], "c": ["from c"]}
    recipe = mixture.recipe(["a", "b"], ["c"], context_tokens={"c": 900})
    outcome = await mixture.answer(recipe)
    [trimmed] = outcome.summary.trimmed
    asked = mixture.models.calls("c")[0]
    assert (trimmed.layer, trimmed.model) == (2, "c")
    assert asked.text.count("word") == 400 - trimmed.tokens_removed
    assert await mixture.models.count_tokens("c", asked.messages) == 900 - 512
    assert "from b" in asked.text


async def test_proposals_that_are_not_streamed_come_in_one_piece_and_are_the_same(
    mixture: Mixture,
) -> None:
    streamed = await mixture.answer(seed=3)
    whole = await mixture.answer(seed=3, stream_proposals=False)
    assert any(isinstance(event, ProposalDelta) for event in streamed.events)
    assert not any(isinstance(event, ProposalDelta) for event in whole.events)
    assert whole.text == streamed.text
    assert whole.summary.calls == streamed.summary.calls


HM = Delta(reasoning="hm")


def of_b(events: list[Event]) -> list[str]:
    """What each event says of the model `b`: that it thinks, a piece of its text, or its end."""
    said: list[str] = []
    for event in events:
        match event:
            case ProposalThinks(model="b"):
                assert (event.layer, event.place) == (1, 1)
                said.append("thinks")
            case ProposalDelta(model="b"):
                said.append(event.text)
            case ProposalDone(model="b"):
                said.append("done")
            case ProposalDropped() if event.missing.model == "b":
                said.append(event.missing.cause)
    return said


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (["from b"], ["from b", "done"]),
        ([HM, HM, "from ", "b"], ["thinks", "from ", "b", "done"]),
        ([HM, 5.0, HM, "from b", HM, "!"], ["thinks", "from b", "!", "done"]),
        ([" \n", HM, "from b"], [" \n", "thinks", "from b", "done"]),
        ([Delta(reasoning="hm", text="from b")], ["from b", "done"]),
        ([Delta(reasoning="hm", text="\n"), "from b"], ["thinks", "\n", "from b", "done"]),
        (["from b", HM], ["from b", "done"]),
        ([HM], ["thinks", "only_reasoning"]),
        ([HM, None], ["thinks", "late"]),
    ],
)
async def test_a_model_that_thinks_before_its_proposal_says_so_once(
    mixture: Mixture, script: list[Step], said: list[str]
) -> None:
    mixture.models.scripts["b"] = script
    outcome = await mixture.answer()
    assert of_b(outcome.events) == said
    assert not any(isinstance(e, ProposalThinks) and e.model != "b" for e in outcome.events)


async def test_nobody_is_told_who_thinks_where_proposals_are_not_streamed(mixture: Mixture) -> None:
    mixture.models.scripts["b"] = [HM, "from b"]
    outcome = await mixture.answer(stream_proposals=False)
    assert of_b(outcome.events) == ["done"]


async def test_leaving_a_layer_whose_proposals_are_not_streamed_closes_its_calls(
    mixture: Mixture,
) -> None:
    mixture.models.scripts["a"] = [None]
    answering = moa.answer([], mixture.recipe(), mixture.models, stream_proposals=False)
    async with aclosing(answering) as events:
        async for event in events:
            if isinstance(event, ProposalDone):
                break
    assert {asked.model: asked.ended for asked in mixture.models.asked} == {
        "a": "closed",
        "b": "finished",
    }
