"""Grades say where they are not MT-Bench's."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.records import Answer, Generator, Row, Verdict
from jobs.scores import grades
from jobs.scores.grades import grades_from_store
from jobs.sets import known_sets
from jobs.sets.known_sets import KnownSet, fingerprint
from jobs.store import Store

CATEGORIES = ("writing", "math") * 40
ROWS = [
    Row(n, (f"Question {n}?", "And?"), (), "", c, ("r", "s"), 81 + n, 0.7)
    for n, c in enumerate(CATEGORIES)
]
JUDGE = "gpt-4:judge_prompts-0123abcd"
KNOWN = KnownSet({fingerprint(row.turns[0]): row.index for row in ROWS}, [])


@pytest.fixture(autouse=True)
def mt_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions of the test in the place of MT-Bench's."""
    for module in (grades, known_sets):
        monkeypatch.setattr(module, "known_set", lambda _: KNOWN)


async def graded(
    folder: Path,
    rows: list[Row],
    judge: str = JUDGE,
    *,
    references: str | None = "gpt-4.jsonl",
    kind: str = "model",
) -> tuple[str, ...]:
    """The reasons of a generator whose answers to all these rows have a grade."""
    with Store.open(folder) as store:
        store.add_rows(rows)
        store.add_generator(Generator("one", kind, "1"))  # type: ignore[arg-type]
        store.add_answers(Answer("one", row.index, turn, "x") for row in rows for turn in (0, 1))
        verdicts = (Verdict(judge, "grade", "one", "", r.index, t, 7.0) for r in rows for t in (0, 1))
        await asyncio.gather(*map(store.keep_verdict, verdicts))
        if references:
            answered = [row.index for row in rows if row.references]
            store.set_about(references={judge: {"file": references, "rows": answered}})
        (found,) = grades_from_store(store, judge)
    assert (found.n, found.missing, found.mean) == (2 * len(rows), 0, 7)
    return found.reasons


async def test_all_of_mt_bench_by_its_judge_is_comparable(tmp_path: Path) -> None:
    assert await graded(tmp_path, ROWS) == ()


async def test_what_is_not_mt_benchs_says_so(tmp_path: Path) -> None:
    other = [*ROWS[:79], replace(ROWS[79], turns=("Another?", "And?"))]
    cold = [replace(row, temperature=None) for row in ROWS]
    bare = [*ROWS[:79], replace(ROWS[79], references=())]
    own = "reference answers: the questions' own, not GPT-4's"
    said = {
        "judge": await graded(tmp_path / "judge", ROWS, "m:grade-0123abcd"),
        "part": await graded(tmp_path / "part", ROWS[:10]),
        "other": await graded(tmp_path / "other", other),
        "references": await graded(tmp_path / "references", ROWS, references=None),
        "few": await graded(tmp_path / "few", bare, references="mine.jsonl"),
        "bare": await graded(tmp_path / "bare", bare, references=None),
        "cold": await graded(tmp_path / "cold", cold),
        "imported": await graded(tmp_path / "imported", cold, kind="file"),
    }
    assert said == {
        "judge": ("judge: m:grade-0123abcd, not gpt-4 with FastChat's prompts",),
        "part": ("10 of MT-Bench's 80 questions",),
        "other": ("set: 1 of 80 rows are not MT-Bench's",),
        "references": (own,),
        "few": ("reference answers: those of mine.jsonl, not of gpt-4.jsonl, 1 questions without any",),
        "bare": (f"{own}, 1 questions without any",),
        "cold": ("answered at the recipe's temperature, not at MT-Bench's for each category",),
        "imported": (),
    }


async def test_turns_that_cannot_be_graded_are_not_missing(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.add_rows([Row(0, ("a", "b", "c"))])
        store.add_generator(Generator("one", "file", "1"))
        await store.keep_verdict(Verdict("J", "grade", "one", "", 0, 0, 7.0))
        (found,) = grades_from_store(store, "J")
    assert (found.n, found.missing) == (1, 1)
