"""Figures from verdicts, with all that they depend on."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from jobs.records import Answer, Generator, Row, Verdict
from jobs.scores.columns import PreferencesError
from jobs.scores.difficulty import Difficulties
from jobs.scores.grades import grades_from_store
from jobs.scores.preferences import OFFICIAL_GAMED, Gamed, Preferences
from jobs.scores.score import score
from jobs.scores.stored import scores_from_store
from jobs.scores.table import grade_table, table
from jobs.sets.known_sets import fingerprint
from jobs.store import Store

JUDGE, BASELINE = "weighted_alpaca_eval_gpt4_turbo", "gpt4_1106_preview"
EASY = dict.fromkeys(range(805), 0.0)
NOT_MT_BENCH = ("judge: J, not gpt-4 with FastChat's prompts", "set: 3 of 3 rows are not MT-Bench's")
OFFICIAL = Gamed(OFFICIAL_GAMED, (0.5, 0.4), (1.0, -1.0), (0.0, 0.1))


def whole(**changes: object) -> Preferences:
    """All of AlpacaEval's rows judged by its judge: four in five won."""
    rows = tuple(range(805))
    preferences = tuple(1.0 if row % 5 == 0 else 2.0 for row in rows)
    lengths = tuple(100 + row % 7 for row in rows)
    base = Preferences("x", rows, preferences, (100,) * 805, lengths, JUDGE, BASELINE)
    return replace(base, **changes)  # type: ignore[arg-type]


def test_a_score_carries_all_that_it_depends_on() -> None:
    found = score(whole(), EASY, OFFICIAL)
    data = json.loads(json.dumps(found.to_json()))
    assert data.pop("lc") == pytest.approx(80, abs=0.5)
    assert data.pop("chosen_c") > 0
    assert data.pop("date") == datetime.now(UTC).date().isoformat()
    # Of 644 won and 161 lost, the sample deviation is sqrt(805 / 804 * 0.8 * 0.2).
    assert data.pop("standard_error") == pytest.approx(100 * (0.16 / 804) ** 0.5)
    assert data.pop("mean_length") == pytest.approx(103)
    assert data == {
        "generator": "x",
        "judge": JUDGE,
        "baseline": BASELINE,
        "n": 805,
        "missing": 0,
        "win_rate": pytest.approx(80),
        "gamed_source": "official file",
        "reasons": [],
        "comparable": True,
        "note": "",
    }


@pytest.mark.parametrize(
    ("preferences", "gamed", "why"),
    [
        (whole(judge="tiny"), OFFICIAL, "judge: tiny, not gpt-4-1106-preview"),
        (
            whole(judge="gpt-4-1106-preview, our prompt"),
            OFFICIAL,
            "judge: gpt-4-1106-preview, our prompt, not gpt-4-1106-preview",
        ),
        (
            whole(baseline="text_davinci_003"),
            OFFICIAL,
            "baseline: text_davinci_003, not gpt4_1106_preview",
        ),
        (whole(preferences=(None,) + (2.0,) * 804), OFFICIAL, "804 judged rows, not 805"),
        (whole(), None, "LC without gamed rows, up to 14 points off"),
        (
            whole(),
            replace(OFFICIAL, source="reconstruction"),
            "gamed rows: reconstruction, not the official file",
        ),
        (
            whole(judge="j", baseline="b"),
            None,
            "judge: j, not gpt-4-1106-preview; baseline: b, not gpt4_1106_preview; "
            "LC without gamed rows, up to 14 points off",
        ),
    ],
)
def test_what_is_not_comparable_says_why(
    preferences: Preferences, gamed: Gamed | None, why: str
) -> None:
    found = score(preferences, EASY, gamed)
    assert not found.comparable
    assert found.note == f"not comparable with the leaderboard ({why})"


@pytest.mark.parametrize("judge", ["gpt-4-1106-preview", "weighted_alpaca_eval_gpt4_turbo"])
def test_a_plain_win_rate_of_the_official_judge_needs_no_gamed_rows(judge: str) -> None:
    found = score(whole(judge=judge), None, None)
    assert (found.lc, found.chosen_c, found.gamed_source) == (None, None, "none")
    assert found.comparable


def test_missing_verdicts_are_counted_and_not_scored() -> None:
    some = Preferences("x", (0, 1, 2, 3), (None, 2.0, 1.5, None), (1,) * 4, (5, 5, 5, 9), unjudged=3)
    found = score(some, EASY, None)
    assert (found.n, found.missing) == (2, 5)
    assert found.win_rate == pytest.approx(75)
    assert found.standard_error == pytest.approx(25)
    assert found.mean_length == 6
    assert found.lc is None  # too few


@pytest.mark.parametrize(("values", "win_rate"), [((), None), ((None,), None), ((1.25,), 25.0)])
def test_what_too_few_verdicts_do_not_give_is_none(
    values: tuple[float | None, ...], win_rate: float | None
) -> None:
    ones = (1,) * len(values)
    found = score(Preferences("x", tuple(range(len(values))), values, ones, ones), EASY, None)
    assert (found.win_rate, found.standard_error, found.lc) == (win_rate, None, None)
    assert "NaN" not in json.dumps(found.to_json())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Three rows of two turns, answered by a baseline (10 characters) and two others (20 and 30)."""
    with Store.open(tmp_path) as opened:
        opened.add_rows(Row(n, ("first", "second")) for n in range(3))
        for n, name in enumerate(("base", "one", "two"), 1):
            opened.add_generator(Generator(name, "file", name))
            opened.add_answers(Answer(name, r, t, "x" * 10 * n) for r in range(3) for t in (0, 1))
        yield opened


def pair(generator: str, row: int, value: float | None, **changes: str) -> Verdict:
    verdict = Verdict("J", "pairwise", generator, "base", row, 0, value)
    return replace(verdict, **changes)  # type: ignore[arg-type]


async def test_scores_come_from_the_verdicts_of_one_judge_against_one_baseline(store: Store) -> None:
    for verdict in (
        *[pair("two", row, value) for row, value in enumerate((2.0, None, 1.0))],
        *[pair("one", row, 2.0) for row in (0, 2)],
        pair("one", 1, 1.0, judge="another"),
        pair("one", 1, 1.0, baseline="two"),
        pair("one", 1, 1.0, kind="grade"),
    ):
        await store.keep_verdict(verdict)
    one, two = scores_from_store(store, "J", "base")
    assert (one.generator, one.n, one.missing, one.win_rate, one.mean_length) == ("one", 2, 1, 100, 20)
    assert (two.generator, two.n, two.missing, two.win_rate, two.mean_length) == ("two", 2, 1, 50, 30)
    assert (one.judge, one.baseline, one.lc) == ("J", "base", None)
    assert scores_from_store(store, "nobody", "base") == []


async def test_length_control_works_on_a_run(tmp_path: Path) -> None:
    with Store.open(tmp_path) as opened:
        opened.add_rows(Row(n, (f"prompt {n}",)) for n in range(20))
        for name in ("base", "one"):
            opened.add_generator(Generator(name, "file", name))
            opened.add_answers(Answer(name, n, 0, name * n) for n in range(20))
        for n in range(20):
            await opened.keep_verdict(pair("one", n, 1.5))
        own = Difficulties("d.csv", {}, {fingerprint(f"prompt {n}"): 0.0 for n in range(20)})
        (found,) = scores_from_store(opened, "J", "base", own, OFFICIAL)
    assert found.lc == pytest.approx(50, abs=1)
    assert found.gamed_source == "official file"
    assert "20 judged rows, not 805" in found.note


@pytest.mark.parametrize(("value", "missing"), [(None, 3), (2.0, "refused")])
async def test_a_verdict_on_an_answer_that_is_not_there(
    tmp_path: Path, value: float | None, missing: int | str
) -> None:
    with Store.open(tmp_path) as opened:
        opened.add_rows(Row(n, ("?",)) for n in range(3))
        for name in ("base", "one"):
            opened.add_generator(Generator(name, "file", name))
        await opened.keep_verdict(pair("one", 1, value))
        if value is None:
            (found,) = scores_from_store(opened, "J", "base")
            assert (found.n, found.missing, found.mean_length) == (0, missing, None)
        else:
            with pytest.raises(PreferencesError, match="judged row 1, turn 0, but the answer of 'one'"):
                scores_from_store(opened, "J", "base")


async def test_grades_are_means_by_turn_and_over_all(store: Store) -> None:
    for row, turn, value in [(0, 0, 10.0), (0, 1, 4.0), (1, 0, 7.0), (1, 1, None)]:
        await store.keep_verdict(Verdict("J", "grade", "one", "", row, turn, value))
    await store.keep_verdict(Verdict("J", "grade", "two", "", 0, 0, None))
    one, two = grades_from_store(store, "J")
    assert one.to_json() == {
        "generator": "one",
        "judge": "J",
        "date": datetime.now(UTC).date().isoformat(),
        "n": 3,
        "missing": 3,  # one unusable, and a row without any
        "mean": 7.0,
        "turns": [{"turn": 0, "n": 2, "mean": 8.5}, {"turn": 1, "n": 1, "mean": 4.0}],
        "reasons": (*NOT_MT_BENCH, "3 graded answers of 6"),
        "comparable": False,
        "note": "not comparable with MT-Bench's figures "
        f"({'; '.join(NOT_MT_BENCH)}; 3 graded answers of 6)",
    }
    assert (two.n, two.missing, two.mean, two.turns) == (0, 6, None, {})
    lines = [" ".join(line.split()) for line in printed(grade_table([one, two])).splitlines()]
    assert "one 3 7.00 8.50 4.00 J 3 missing" in lines
    assert "two 0 - - - J 6 missing" in lines
    assert f"not comparable with MT-Bench's figures ({'; '.join(NOT_MT_BENCH)})" in " ".join(lines)


def printed(what: Table) -> str:
    out = io.StringIO()
    Console(file=out, width=250).print(what)
    return out.getvalue()


def test_the_table_says_once_what_holds_for_all() -> None:
    scores = [
        score(whole(judge="tiny"), EASY, OFFICIAL),
        score(whole(judge="tiny", generator="y", preferences=(None,) * 5 + (2.0,) * 800), None, None),
    ]
    text = printed(table(scores))
    assert text.count("judge: tiny, not gpt-4-1106-preview") == 1
    x, y = (next(line for line in text.splitlines() if f" {name} " in line) for name in "xy")
    assert x.split()[:5] == ["x", "805", "80.00", "±", "1.41"]
    assert y.split()[:8] == ["y", "800", "100.00", "±", "0.00", "-", "103", "tiny"]
    assert y.strip().endswith(
        "5 missing; not comparable with the leaderboard (800 judged rows, not 805)"
    )
    for stated in (BASELINE, "gamed rows: official file", "gamed rows: none", scores[0].date):
        assert stated in text


def test_an_empty_table_is_a_table() -> None:
    assert "win rate" in printed(table([]))
    assert "generator" in printed(grade_table([]))
