"""Rows that fail, answers that lack a model, and runs that stop: what is stored and tried again."""

import pytest

from configs.errors import ContextTooLong, EngineError, EngineUnavailable
from jobs import variants
from jobs.generate import FAILURES_IN_A_ROW, GenerateProgress, RunStopped
from jobs.records import Row
from jobs.store import StoreError
from jobs.store.writer import Action, Writer
from tests.unit.jobs.answering import MIX, Bench, fails_on, question, recipe, says

pytestmark = [pytest.mark.virtual_time, pytest.mark.usefixtures("written_at_once")]


async def test_a_row_that_fails_is_kept_apart_and_tried_again_by_the_next_run(bench: Bench) -> None:
    bench.ask("q0", "q1", "q2")
    bench.models.scripts["a"] = fails_on("q1", EngineError("the engine broke"))
    for run in (1, 2):
        assert await bench.run() == GenerateProgress(rows=3, answered=2, failed=1)
        [failure] = bench.store.failures()
        assert (failure.stage, failure.generator, failure.row) == ("generate", "mix", 1)
        assert (failure.cause, failure.attempts) == ("engine_error", run)
        assert failure.detail == "model 'a': the engine broke"
        assert failure.at > 1e9
        assert [answer.row for answer in bench.answers()] == [0, 2]
    bench.models.scripts["a"] = says
    assert await bench.run() == GenerateProgress(rows=3, answered=3)
    assert bench.asked == {"a": 1, "z": 1}  # what b had proposed was stored
    assert bench.store.failures() == []


async def test_after_a_fault_no_later_stage_works_for_nothing(bench: Bench) -> None:
    bench.ask("q0")
    bench.models.scripts["a"] = [EngineError("broken")]
    await bench.run(variants.mixture(recipe(["a", "b"], ["a", "b"])))
    assert bench.asked == {"a": 2, "b": 1}
    assert bench.store.failures()[0].cause == "engine_error"


async def test_a_fault_does_not_lose_what_the_others_of_its_layer_write(bench: Bench) -> None:
    bench.ask("q0")
    bench.models.scripts |= {"a": [EngineError("broken")], "b": lambda asked: [500.0, *says(asked)]}
    await bench.run()
    bench.models.scripts["a"] = says
    assert (await bench.run()).answered == 1
    assert bench.asked == {"a": 1, "z": 1}


async def test_degraded_answers_are_kept_where_they_are_allowed(bench: Bench) -> None:
    bench.store.add_rows([Row(0, ("one", "two")), Row(1, ("whole",))])
    bench.models.scripts["a"] = fails_on("one", EngineError("broken"))
    done = await bench.run(allow_degraded=True)
    assert done == GenerateProgress(rows=2, answered=2, degraded=1)
    first, *others = bench.answers()
    [missing] = first.missing
    assert (missing["layer"], missing["model"], missing["cause"]) == (1, "a", "engine_error")
    assert [used.model for used in first.used] == ["z", "b"]
    assert [(len(answer.used), answer.missing) for answer in others] == [(3, ()), (3, ())]


async def test_an_empty_proposal_is_the_models_own_and_makes_no_row_fail(bench: Bench) -> None:
    bench.ask("q0")
    bench.models.scripts["a"] = [" "]
    assert await bench.run() == GenerateProgress(rows=1, answered=1)
    [answer] = bench.answers()
    assert [(m["model"], m["cause"]) for m in answer.missing] == [("a", "empty")]
    assert [(used.layer, used.place, used.model) for used in answer.used] == [(0, 0, "z"), (1, 1, "b")]
    assert await bench.run() == GenerateProgress(rows=1, answered=1)


async def test_a_layer_without_its_quorum_is_no_part_of_an_answer(bench: Bench) -> None:
    bench.ask("q0")
    bench.models.scripts["c"] = [""]
    await bench.run(variants.mixture(recipe(["a", "b"], ["a", "c"], limits={"quorum": 2})))
    [answer] = bench.answers()
    assert [(used.layer, used.model) for used in answer.used] == [(0, "z"), (1, "a"), (1, "b")]
    assert [m["cause"] for m in answer.missing] == ["empty", "quorum_not_met"]


async def test_a_proposal_that_does_not_fit_makes_no_row_fail(bench: Bench) -> None:
    bench.ask("q0")
    bench.models.scripts["a"] = [ContextTooLong("too long")]
    assert await bench.run() == GenerateProgress(rows=1, answered=1)
    assert bench.answers()[0].missing[0]["cause"] == ContextTooLong.code


async def test_an_aggregator_without_a_text_leaves_its_row_to_the_best_proposal(bench: Bench) -> None:
    bench.ask("q0")
    bench.models.scripts["z"] = [""]
    assert await bench.run() == GenerateProgress(rows=1, answered=1)
    [answer] = bench.answers()
    assert answer.text.startswith("a on q0")
    assert [used.model for used in answer.used] == ["a", "b"]
    assert [(m["layer"], m["model"], m["cause"]) for m in answer.missing] == [(0, "z", "empty")]


async def test_an_aggregator_that_fails_fails_its_row(bench: Bench) -> None:
    bench.ask("q0")
    bench.models.scripts["z"] = [EngineError("broken")]
    mix = recipe(aggregator={"model": "z", "fallbacks": ["y"]})
    assert (await bench.run(variants.mixture(mix))).failed == 1
    assert bench.asked == {"a": 1, "b": 1, "y": 1, "z": 2}
    assert bench.store.failures()[0].detail == "model 'z': broken"


async def test_a_run_in_which_nothing_works_stops(bench: Bench) -> None:
    bench.ask(*(f"q{n}" for n in range(FAILURES_IN_A_ROW + 50)))
    bench.models.scripts["b"] = lambda asked: (
        says(asked) if question(asked) == "q0" else [EngineUnavailable("gone")]
    )
    with pytest.raises(RunStopped, match=r"100 rows failed .* engine_unavailable: model 'b': gone"):
        await bench.run(in_flight=4)
    assert len(bench.store.failures()) == FAILURES_IN_A_ROW
    assert [answer.row for answer in bench.answers()] == [0]
    bench.models.scripts["b"] = says
    done = await bench.run()
    assert done == GenerateProgress(rows=FAILURES_IN_A_ROW + 50, answered=FAILURES_IN_A_ROW + 50)
    assert bench.store.failures() == []


async def test_an_answer_in_between_lets_a_run_go_on(bench: Bench) -> None:
    bench.ask(*(f"q{n}" for n in range(2 * FAILURES_IN_A_ROW)))
    good = f"q{FAILURES_IN_A_ROW - 1}"
    bench.models.scripts["a"] = lambda asked: (
        says(asked) if question(asked) == good else [EngineError("broken")]
    )
    with pytest.raises(RunStopped):
        await bench.run(in_flight=1)
    assert len(bench.store.failures()) == 2 * FAILURES_IN_A_ROW - 1


async def test_rows_that_are_too_long_do_not_stop_a_run(bench: Bench) -> None:
    bench.ask(*(f"q{n}" for n in range(FAILURES_IN_A_ROW + 5)))
    bench.models.scripts["a"] = [ContextTooLong("too long")]
    done = await bench.run(variants.alone(MIX.recipe, "a"))
    assert (done.answered, done.failed) == (0, FAILURES_IN_A_ROW + 5)


async def test_a_text_that_cannot_be_stored_fails_its_row(bench: Bench) -> None:
    bench.ask("q0", "q1")
    bench.models.scripts["a"] = lambda asked: ["\ud800"] if question(asked) == "q0" else says(asked)
    assert await bench.run() == GenerateProgress(rows=2, answered=1, failed=1)
    [failure] = bench.store.failures()
    assert (failure.row, failure.cause, failure.detail) == (
        0,
        "internal_error",
        "model 'a': StoreError",
    )


async def test_a_disk_that_refuses_ends_the_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.ask(*(f"q{n}" for n in range(9)))
    left = iter(range(10))
    write = Writer.write

    async def until_full(writer: Writer, action: Action) -> None:
        if next(left, None) is None:
            raise StoreError("the disk is full")
        await write(writer, action)

    monkeypatch.setattr(Writer, "write", until_full)
    with pytest.raises(StoreError, match="the disk is full"):
        await bench.run(in_flight=2)
    monkeypatch.setattr(Writer, "write", write)
    assert await bench.run() == GenerateProgress(rows=9, answered=9)
    assert len(bench.models.asked) < 27
