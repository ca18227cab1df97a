"""The aggregator alone over proposals that a client gives: `moa.fuse`."""

from typing import Any

import pytest

from configs.errors import ContextTooLong, DeadlineExceeded, EngineError
from configs.schema import Sampling
from serve_app.mixture.events import (
    ProposalDelta,
    ProposalDone,
    ProposalDropped,
    Reference,
    StageStarted,
    Started,
    Trimmed,
)
from serve_app.mixture.given import aggregated_by, given_proposals
from tests.unit.serve_app.mixture.conftest import Mixture, Outcome

pytestmark = pytest.mark.virtual_time

PROPOSALS = [("a", "from a"), ("b", "from b"), ("somebody else", "from c")]


async def fuse(mixture: Mixture, *proposals: tuple[str, str], **options: Any) -> Outcome:
    recipe = options.pop("recipe", None) or mixture.recipe()
    return await mixture.answer(
        recipe, given=given_proposals(recipe, proposals or PROPOSALS), **options
    )


async def test_only_the_aggregator_works(mixture: Mixture) -> None:
    outcome = await fuse(mixture, seed=3)
    (asked,) = mixture.models.asked
    assert asked.model == "z"
    for _, text in PROPOSALS:
        assert asked.text.count(text) == 1
    assert outcome.text == "the answer"
    assert outcome.proposals == []
    kinds = {type(event) for event in outcome.events}
    assert not kinds & {ProposalDelta, ProposalDone, ProposalDropped}
    summary = outcome.summary
    assert (summary.answered.model, summary.degraded, summary.seed) == ("z", False, 3)
    assert [stage.stage for stage in summary.stages] == ["aggregator"]
    assert [(call.model, call.role) for call in summary.calls] == [("z", "aggregator")]


async def test_the_events_tell_the_order_in_which_the_aggregator_reads(mixture: Mixture) -> None:
    orders = set()
    for seed in range(20):
        mixture.models.asked.clear()
        outcome = await fuse(mixture, seed=seed)
        started, stage, *_ = outcome.events
        assert isinstance(started, Started)
        assert isinstance(stage, StageStarted)
        assert (stage.stage, stage.models, stage.at_s) == ("aggregator", ("z",), 0.0)
        assert outcome.summary.stages[0].references == stage.references
        (asked,) = mixture.models.asked
        texts = [PROPOSALS[reference.place][1] for reference in stage.references]
        assert [asked.text.index(text) for text in texts] == sorted(map(asked.text.index, texts))
        assert sorted(stage.references, key=lambda each: each.place) == [
            Reference(1, place) for place in range(3)
        ]
        orders.add(stage.references)
    assert len(orders) > 3


@pytest.mark.parametrize("layers", [1, 3])
async def test_the_proposals_and_the_seed_of_an_answer_make_its_prompt_again(
    mixture: Mixture, layers: int
) -> None:
    mixture.models.scripts["c"] = ["from c"]
    recipe = mixture.recipe(*[["a", "b", "c"]] * layers)
    first = await mixture.answer(recipe, seed=8)
    last = [e for e in first.events if isinstance(e, ProposalDone)][-3:]
    last.sort(key=lambda proposal: proposal.place)
    again = await fuse(mixture, *[(each.model, each.text) for each in last], recipe=recipe, seed=8)
    before, after = mixture.models.calls("z")
    assert (before.messages, before.sampling) == (after.messages, after.sampling)
    assert again.summary.stages[0].references == first.summary.stages[-1].references


@pytest.mark.parametrize("order", ["seeded", "arrival"])
@pytest.mark.parametrize("layers", [1, 2])
async def test_an_answer_that_missed_a_proposal_is_made_again_from_the_places_of_the_others(
    mixture: Mixture, order: str, layers: int
) -> None:
    mixture.models.scripts |= {"c": [0.3, "from c"], "d": [0.1, "from d"], "a": [0.2, "from a"]}
    mixture.models.scripts["b"] = [EngineError("no", model="b")]
    recipe = mixture.recipe(*[["a", "b", "c", "d"]] * layers, references={"order": order})
    for seed in range(12):
        mixture.models.asked.clear()
        first = await mixture.answer(recipe, seed=seed)
        last = {e.place: e for e in first.events if isinstance(e, ProposalDone) and e.layer == layers}
        read = first.summary.stages[-1].references
        given = sorted(last) if order == "seeded" else [reference.place for reference in read]
        assert set(given) == {0, 2, 3}
        proposals = given_proposals(recipe, [(last[n].model, last[n].text) for n in given], given)
        again = await mixture.answer(recipe, given=proposals, seed=seed)
        before, after = mixture.models.calls("z")
        assert before.messages == after.messages
        assert again.summary.stages[0].references == read
        assert first.summary.order == again.summary.order == order


async def test_a_place_behind_those_of_the_layer_is_read_too(mixture: Mixture) -> None:
    recipe = mixture.recipe(["a", "b"])
    proposals = given_proposals(recipe, PROPOSALS, [7, 0, 1])
    orders = set()
    for seed in range(20):
        outcome = await mixture.answer(recipe, given=proposals, seed=seed)
        orders.add(tuple(each.place for each in outcome.summary.stages[0].references))
    assert {tuple(sorted(order)) for order in orders} == {(0, 1, 7)}
    assert len(orders) > 3


async def test_proposals_may_be_left_out_or_be_more_than_the_layer_has(mixture: Mixture) -> None:
    for count in (1, 40):
        mixture.models.asked.clear()
        await fuse(mixture, *[(f"m{n}", f"<text {n}>") for n in range(count)])
        (asked,) = mixture.models.asked
        assert sum(f"<text {n}>" in asked.text for n in range(count)) == count


async def test_another_model_aggregates_with_the_prompt_and_the_sampling_of_the_recipe(
    mixture: Mixture,
) -> None:
    sampling = {"temperature": 0.25, "max_tokens": 77}
    recipe = mixture.recipe(
        aggregator={"sampling": sampling}, references={"prompt": "Read these and write one."}
    )
    other = aggregated_by(recipe, "b")
    outcome = await fuse(mixture, recipe=other)
    (asked,) = mixture.models.asked
    assert (asked.model, outcome.summary.answered.model) == ("b", "b")
    assert asked.sampling == Sampling.model_validate(sampling)
    assert "Read these and write one." in asked.text
    assert outcome.summary.answered.fallback is None
    assert not outcome.summary.degraded


@pytest.mark.parametrize(
    ("chosen", "models"), [("z", ("z", "y", "x")), ("b", ("b", "y", "x")), ("y", ("y", "x"))]
)
def test_the_fallbacks_of_the_recipe_take_over_for_any_aggregator(
    mixture: Mixture, chosen: str, models: tuple[str, ...]
) -> None:
    mixture.models.scripts |= {"x": [], "y": []}
    recipe = mixture.recipe(aggregator={"fallbacks": ["y", "x"]})
    assert aggregated_by(recipe, chosen).aggregators == models
    assert recipe.aggregators == ("z", "y", "x")


def test_token_numbers_of_one_model_are_not_given_to_another(mixture: Mixture) -> None:
    extra = {"extra": {"logit_bias": {"5": 1.0}, "min_tokens": 2}}
    recipe = mixture.recipe(aggregator={"sampling": {}})
    numbered = Sampling().model_copy(update=extra)
    recipe = recipe.model_copy(
        update={"aggregator": recipe.aggregator.model_copy(update={"sampling": numbered})}
    )
    assert aggregated_by(recipe, "b").aggregator.sampling.extra == {"min_tokens": 2}
    assert aggregated_by(recipe, "z") is recipe


async def test_a_fallback_and_then_a_given_proposal_stand_in(mixture: Mixture) -> None:
    mixture.models.scripts |= {"z": [EngineError("boom")], "y": ["from y"]}
    recipe = mixture.recipe(aggregator={"fallbacks": ["y"]})
    outcome = await fuse(mixture, recipe=recipe)
    assert (outcome.text, outcome.summary.answered.fallback) == ("from y", "aggregator")
    mixture.models.scripts["y"] = [EngineError("boom")]
    outcome = await fuse(mixture, ("a stranger", "given first"), ("a", "given second"), recipe=recipe)
    answered = outcome.summary.answered
    assert (outcome.text, answered.model, answered.fallback) == (
        "given first",
        "a stranger",
        "reference",
    )
    assert outcome.missing == [(0, "z", "engine_error"), (0, "y", "engine_error")]
    assert outcome.summary.degraded
    assert not mixture.models.calls("a")


async def test_a_given_proposal_that_stands_in_keeps_the_requests_limits(mixture: Mixture) -> None:
    """The label is no model, so the tokens of the last aggregator are counted."""
    mixture.models.scripts["z"] = [EngineError("boom")]
    outcome = await fuse(mixture, ("a stranger", "one two three four"), sampling=Sampling(max_tokens=2))
    assert (outcome.text, outcome.summary.answered.finish_reason) == ("one two", "length")


async def test_the_deadline_and_the_first_tokens_time_hold(mixture: Mixture) -> None:
    mixture.models.scripts["z"] = ["the ", 200.0, "answer"]
    outcome = await fuse(mixture)
    assert (outcome.text, outcome.summary.answered.cut) == ("the ", True)
    assert outcome.seconds == 100
    mixture.models.scripts["z"] = [None]
    recipe = mixture.recipe(aggregator={"first_token_timeout_s": 7})
    outcome = await fuse(mixture, ("a", "given"), recipe=recipe)
    assert (outcome.text, outcome.seconds) == ("given", 7)
    (missing,) = outcome.summary.missing
    assert missing.cause == DeadlineExceeded.code


async def test_long_proposals_are_trimmed_and_too_many_are_refused(mixture: Mixture) -> None:
    recipe = mixture.recipe(context_tokens={"z": 1400})
    outcome = await fuse(mixture, ("a", "word " * 3000), ("b", "short"), recipe=recipe)
    assert any(isinstance(event, Trimmed) for event in outcome.events)
    (asked,) = mixture.models.asked
    assert "short" in asked.text
    mixture.models.asked.clear()
    with pytest.raises(ContextTooLong):
        await fuse(mixture, *[("a", "text")] * 60, recipe=recipe)
    assert mixture.models.asked == []


async def test_the_quorum_asks_nothing_of_given_proposals(mixture: Mixture) -> None:
    outcome = await fuse(mixture, ("a", "alone"), recipe=mixture.recipe(quorum=2))
    assert (outcome.text, outcome.summary.degraded) == ("the answer", False)


async def test_a_begun_answer_is_continued_over_given_proposals(mixture: Mixture) -> None:
    begun: list[Any] = [
        {"role": "user", "content": "Count."},
        {"role": "assistant", "content": "One, "},
    ]
    await fuse(mixture, messages=begun)
    (asked,) = mixture.models.asked
    assert asked.messages[-1] == begun[-1]
    assert "from a" in asked.text
