"""A call that is lost with its replica: which calls are made again, how often, and in what time."""

from collections.abc import Sequence

import pytest

from actors.engine import Delta
from configs.errors import (
    EngineError,
    EngineUnavailable,
    NoReplica,
    Overloaded,
    RequestError,
    ServerUnreachable,
)
from configs.schema import Sampling
from serve_app.mixture import moa
from serve_app.mixture.events import (
    AnswerDelta,
    Event,
    ProposalDelta,
    ProposalDone,
    ProposalThinks,
    Retried,
)
from serve_app.mixture.retry import ATTEMPTS, FIRST_WAIT_S
from tests.unit.scripts import Asked, Step
from tests.unit.serve_app.mixture.conftest import QUESTION, Mixture

pytestmark = pytest.mark.virtual_time

HM = Delta(reasoning="hm")
LOST = EngineUnavailable("its process is dead")
AGGREGATORS = {"fallbacks": ["y"], "first_token_timeout_s": 10}
MOST_WAITED_S = FIRST_WAIT_S * (2 ** (ATTEMPTS - 1) - 1)


def by_attempt(mixture: Mixture, model: str, *outcomes: Sequence[Step]) -> None:
    """Give a model one script for each attempt. A probe of it finds a replica."""

    def script(_: Asked) -> Sequence[Step]:
        return outcomes[len(mixture.models.calls(model)) - 1]

    mixture.models.scripts[model] = script
    mixture.models.probing[model] = 0.0


@pytest.mark.parametrize("stream_proposals", [True, False])
@pytest.mark.parametrize("before", [[], [3.0], ["half a ", 3.0]])
async def test_a_proposer_whose_replica_is_lost_is_asked_again(
    mixture: Mixture, stream_proposals: bool, before: list[Step]
) -> None:
    by_attempt(mixture, "b", [*before, LOST], [*before, LOST], ["from b"])
    outcome = await mixture.answer(stream_proposals=stream_proposals)
    assert sorted(outcome.proposals) == ["from a", "from b"]
    assert not outcome.summary.degraded
    assert [(r.layer, r.model, r.detail) for r in outcome.summary.retried] == [
        (1, "b", LOST.message),
        (1, "b", LOST.message),
    ]
    first, *_, last = mixture.models.calls("b")
    assert (last.messages, last.sampling) == (first.messages, first.sampling)
    assert "half a" not in mixture.models.calls("z")[0].text
    waited = outcome.seconds - 2 * (3.0 in before) * 3
    assert MOST_WAITED_S / 2 - 1e-9 <= waited <= MOST_WAITED_S + 1e-9


async def test_a_call_is_made_attempts_times_and_no_more(mixture: Mixture) -> None:
    by_attempt(mixture, "b", *[[LOST]] * ATTEMPTS)
    outcome = await mixture.answer()
    assert len(mixture.models.calls("b")) == ATTEMPTS
    assert outcome.missing == [(1, "b", "engine_unavailable")]
    assert len(outcome.summary.retried) == ATTEMPTS - 1


@pytest.mark.parametrize(
    "error",
    [
        EngineError("boom"),
        Overloaded("full"),
        ServerUnreachable("far away"),
        NoReplica("gone"),
        ValueError("odd"),
    ],
)
async def test_a_call_that_was_not_lost_with_its_replica_is_not_made_again(
    mixture: Mixture, error: Exception
) -> None:
    by_attempt(mixture, "b", [error])
    by_attempt(mixture, "z", [error])
    outcome = await mixture.answer()
    assert [(layer, model) for layer, model, _ in outcome.missing] == [(1, "b"), (0, "z")]
    assert outcome.summary.retried == ()
    assert outcome.seconds == 0


async def test_without_another_replica_a_proposer_is_dropped_after_one_probe(mixture: Mixture) -> None:
    mixture.models.scripts["b"] = [LOST]
    outcome = await mixture.answer()
    assert outcome.missing == [(1, "b", "engine_unavailable")]
    assert outcome.summary.missing[0].detail == LOST.message
    assert len(mixture.models.calls("b")) == 1
    assert outcome.seconds == 0


async def test_the_layers_deadline_holds_for_all_attempts_together(mixture: Mixture) -> None:
    by_attempt(mixture, "b", [20.0, LOST], [20.0, "from b"])
    outcome = await mixture.answer(mixture.recipe(layer_deadline_s=30))
    assert outcome.missing == [(1, "b", "late")]
    assert outcome.seconds == 30
    assert mixture.models.calls("b")[-1].ended == "closed"


async def test_a_probe_that_takes_long_is_ended_by_the_grace(mixture: Mixture) -> None:
    mixture.models.scripts["b"] = [LOST]
    mixture.models.probing["b"] = None
    outcome = await mixture.answer(mixture.recipe(quorum=1, grace_s=1))
    assert outcome.missing == [(1, "b", "late")]
    assert outcome.seconds == 1


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        (["one ", "two "], ["one ", "two ", "three"], ["one ", "two ", "three"]),
        (["one ", "two "], ["one two th", "ree"], ["one ", "two ", "th", "ree"]),
        (["one ", "two "], ["another"], ["one ", "two "]),
        (["one ", "two "], ["one "], ["one ", "two "]),
        (["one ", "two "], ["won ", "two ", "three"], ["one ", "two "]),
    ],
)
async def test_no_text_of_a_proposal_is_streamed_twice_and_the_whole_comes_at_the_end(
    mixture: Mixture, first: list[Step], second: list[str], shown: list[str]
) -> None:
    by_attempt(mixture, "b", [*first, LOST], second)
    outcome = await mixture.answer()
    grown = [e.text for e in outcome.events if isinstance(e, ProposalDelta) and e.model == "b"]
    [done] = [e for e in outcome.events if isinstance(e, ProposalDone) and e.model == "b"]
    assert grown == shown
    assert done.text == "".join(second).strip()


@pytest.mark.parametrize(
    ("first", "second", "kinds"),
    [
        ([HM, LOST], [HM, "from b"], [ProposalThinks, Retried, ProposalThinks, ProposalDelta]),
        ([LOST], [HM, "from b"], [Retried, ProposalThinks, ProposalDelta]),
        ([HM, "fr", LOST], [HM, "from b"], [ProposalThinks, ProposalDelta, Retried, ProposalDelta]),
        ([HM, LOST], ["from b"], [ProposalThinks, Retried, ProposalDelta]),
    ],
    ids=["thinks twice", "thinks then", "has text before", "thinks no more"],
)
async def test_a_model_that_is_asked_again_says_again_that_it_thinks(
    mixture: Mixture, first: list[Step], second: list[Step], kinds: list[type[Event]]
) -> None:
    by_attempt(mixture, "b", first, second)
    outcome = await mixture.answer()
    told = (ProposalThinks, ProposalDelta, Retried)
    assert [type(e) for e in outcome.events if isinstance(e, told) and e.model == "b"] == kinds


@pytest.mark.parametrize(
    "before", [[], [3.0], [" \n"], [Delta(reasoning="hm")], [Delta(reasoning="hm"), " "]]
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_an_aggregator_lost_before_its_first_text_is_asked_again_before_another_is(
    mixture: Mixture, before: list[Step], streamed: bool
) -> None:
    mixture.models.scripts["y"] = ["from y"]
    by_attempt(mixture, "z", [*before, LOST], ["the ", "answer"])
    outcome = await mixture.answer(mixture.recipe(aggregator=AGGREGATORS), streamed=streamed)
    assert outcome.text == "the answer"
    assert (outcome.summary.answered.model, outcome.summary.degraded) == ("z", False)
    assert [(r.layer, r.model) for r in outcome.summary.retried] == [(0, "z")]
    assert mixture.models.calls("y") == []


async def test_after_its_attempts_the_next_aggregator_answers(mixture: Mixture) -> None:
    mixture.models.scripts["y"] = ["from y"]
    by_attempt(mixture, "z", *[[LOST]] * ATTEMPTS)
    outcome = await mixture.answer(mixture.recipe(aggregator=AGGREGATORS))
    assert (outcome.text, outcome.missing) == ("from y", [(0, "z", "engine_unavailable")])
    assert len(mixture.models.calls("z")) == ATTEMPTS


async def test_an_aggregator_lost_after_its_first_text_was_read_is_an_error(mixture: Mixture) -> None:
    mixture.models.scripts["y"] = ["from y"]
    by_attempt(mixture, "z", ["half an ", LOST], ["never asked"])
    seen: list[object] = []

    async def read() -> None:
        recipe = mixture.recipe(aggregator=AGGREGATORS)
        async for event in moa.answer(QUESTION, recipe, mixture.models):
            seen.append(event)

    with pytest.raises(EngineUnavailable, match=LOST.message):
        await read()
    assert [e.delta.text for e in seen if isinstance(e, AnswerDelta)] == ["half an "]
    assert not any(isinstance(e, Retried) for e in seen)
    assert len(mixture.models.calls("z")) == 1


async def test_an_answer_that_is_not_streamed_is_made_again_even_after_its_first_text(
    mixture: Mixture,
) -> None:
    mixture.models.scripts["y"] = ["from y"]
    by_attempt(mixture, "z", ["half an ", LOST], [Delta(reasoning="hm"), "the ", "answer"])
    outcome = await mixture.answer(mixture.recipe(aggregator=AGGREGATORS), streamed=False)
    [delta] = [e.delta for e in outcome.events if isinstance(e, AnswerDelta)]
    assert (delta.text, delta.reasoning) == ("the answer", "hm")
    assert (outcome.summary.answered.model, outcome.summary.degraded) == ("z", False)


async def test_the_first_tokens_time_is_one_for_all_attempts(mixture: Mixture) -> None:
    mixture.models.scripts["y"] = ["from y"]
    by_attempt(mixture, "z", [6.0, LOST], [6.0, "too late"])
    outcome = await mixture.answer(mixture.recipe(aggregator=AGGREGATORS))
    assert (outcome.text, outcome.missing) == ("from y", [(0, "z", "deadline_exceeded")])
    assert outcome.seconds == 10


async def test_a_probe_beyond_the_time_leaves_the_call_its_error(mixture: Mixture) -> None:
    mixture.models.scripts |= {"y": ["from y"], "z": [6.0, LOST]}
    mixture.models.probing["z"] = None
    outcome = await mixture.answer(mixture.recipe(aggregator=AGGREGATORS))
    assert (outcome.text, outcome.missing) == ("from y", [(0, "z", "engine_unavailable")])
    assert outcome.seconds == 10


@pytest.mark.parametrize("model", ["b", "z"])
async def test_counting_tokens_is_asked_again_too(
    mixture: Mixture, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture.models.probing[model] = 0.0
    count, failures = mixture.models.count_tokens, [LOST, LOST]

    async def faulty(asked: str, messages: Sequence[object], _template: object = None) -> int:
        if asked == model and failures and mixture.models.asked:
            raise failures.pop()
        return await count(asked, messages)  # type: ignore[arg-type]

    monkeypatch.setattr(mixture.models, "count_tokens", faulty)
    recipe = mixture.recipe(["a"], ["b"], context_tokens=dict.fromkeys("bz", 800))
    outcome = await mixture.answer(recipe)
    assert failures == []
    assert not outcome.summary.degraded
    assert {r.model for r in outcome.summary.retried} == {model}


async def test_one_model_asked_directly_is_asked_again_before_its_first_token(mixture: Mixture) -> None:
    by_attempt(mixture, "a", [LOST], ["from a"])
    answered = moa.direct(QUESTION, mixture.recipe(), mixture.models, "a", Sampling())
    events = [event async for event in answered]
    assert next(e.delta.text for e in events if isinstance(e, AnswerDelta)) == "from a"
    by_attempt(mixture, "b", [Delta(reasoning="hm"), LOST], ["never asked"])
    with pytest.raises(RequestError, match=LOST.message):
        [e async for e in moa.direct(QUESTION, mixture.recipe(), mixture.models, "b", Sampling())]
