"""Variants of one mixture share their calls: which calls another variant still costs."""

from dataclasses import replace

import pytest

from jobs import variants
from jobs.generate import GenerateProgress
from tests.unit.jobs.answering import MIX, Bench, recipe

pytestmark = [pytest.mark.virtual_time, pytest.mark.usefixtures("written_at_once")]


async def test_without_a_proposer_only_the_aggregator_is_asked_again(bench: Bench) -> None:
    bench.ask("q0", "q1")
    base = variants.mixture(recipe(["a", "b", "c"]))
    await bench.run(base)
    assert await bench.run(variants.without(base.recipe, "a")) == GenerateProgress(rows=2, answered=2)
    assert bench.asked == {"z": 2}
    assert "a on" not in "".join(asked.text for asked in bench.models.asked)


async def test_a_proposer_alone_asks_nothing_for_its_answers_are_its_proposals(bench: Bench) -> None:
    bench.ask("q0", "q1")
    await bench.run()
    proposals = [bench.text(used.key) for a in bench.answers() for used in a.used if used.model == "b"]
    await bench.run(variants.alone(MIX.recipe, "b"))
    assert bench.asked == {}
    assert [answer.text for answer in bench.answers("b")] == proposals
    assert [[(u.layer, u.place, u.model) for u in a.used] for a in bench.answers("b")] == [
        [(0, 0, "b")]
    ] * 2


async def test_a_new_aggregator_asks_for_the_aggregation_alone(bench: Bench) -> None:
    bench.ask("q0", "q1")
    await bench.run()
    await bench.run(variants.aggregated_by(MIX.recipe, "y"))
    assert bench.asked == {"y": 2}


async def test_a_new_proposer_asks_for_its_column_and_the_aggregation(bench: Bench) -> None:
    bench.ask("q0", "q1")
    await bench.run()
    await bench.run(variants.with_also(MIX.recipe, "c"))
    assert bench.asked == {"c": 2, "z": 2}


async def test_variants_that_run_at_once_share_their_calls(bench: Bench) -> None:
    bench.ask("q0", "q1")
    them = (MIX, *(variants.alone(MIX.recipe, model) for model in "ab"), replace(MIX, name="copy"))
    assert await bench.run(*them) == GenerateProgress(rows=8, answered=8)
    assert bench.asked == {"a": 2, "b": 2, "z": 2}


async def test_equal_rows_share_their_calls_and_their_answer(bench: Bench) -> None:
    bench.ask("same", "other", "same")
    await bench.run()
    assert bench.asked == {"a": 2, "b": 2, "z": 2}
    first, other, third = bench.answers()
    assert (first.text, first.used) == (third.text, third.used)
    assert first.text != other.text


async def test_a_model_that_only_aggregates_is_sampled_alone_as_the_aggregator(bench: Bench) -> None:
    bench.ask("q0")
    base = recipe(aggregator={"model": "z", "sampling": {"temperature": 0.1, "max_tokens": 9}})
    await bench.run(variants.alone(base, "z"))
    [asked] = bench.models.asked
    assert (asked.sampling.temperature, asked.sampling.max_tokens) == (0.1, 9)
