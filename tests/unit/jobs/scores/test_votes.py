"""Blind votes, as the page writes them, and the figures that they give."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from jobs.scores import score as scores
from jobs.scores.columns import PreferencesError
from jobs.scores.score import wilson
from jobs.scores.scoring import score_file
from jobs.scores.votes import are_votes, read_votes


def vote(
    member: str, preference: Any, *, n: int = 0, lengths: tuple[int, int] = (3, 5), **row: Any
) -> dict[str, Any]:
    """A row as the page writes it: the member's proposal, then the mixture's answer."""
    return {
        "instruction": f"question {n}",
        "output_1": "m" * lengths[0],
        "output_2": "x" * lengths[1],
        "generator_1": member,
        "generator_2": "mix",
        "preference": preference,
        **row,
    }


def swapped(row: dict[str, Any]) -> dict[str, Any]:
    """The same vote with the answers in the other order."""
    return {
        **row,
        "output_1": row["output_2"],
        "output_2": row["output_1"],
        "generator_1": row["generator_2"],
        "generator_2": row["generator_1"],
        "preference": 3 - row["preference"],
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "votes.json"


def write(path: Path, rows: Any) -> Path:
    path.write_text(json.dumps(rows))
    return path


ROWS = [
    *[vote("a", value, n=n, lengths=(10, 10 + n)) for n, value in enumerate((2, 2, 2, 1, 1.5, 2))],
    *[vote("b", value, n=n, lengths=(20, 10 + n)) for n, value in enumerate((1, 1, 2, 1.5))],
]


def figures(path: Path) -> dict[tuple[str, str], Any]:
    found = score_file(path, None, None, None, None)
    return {(s.generator, s.baseline): (s.n, s.win_rate) for some in found.scores for s in some}


EXPECTED = {("mix", "a"): (6, 75.0), ("mix", "b"): (4, 37.5)}


def test_the_mixture_is_scored_against_each_member(path: Path) -> None:
    assert figures(write(path, ROWS)) == EXPECTED
    first, second = read_votes(path)
    assert first.len_baseline == (10,) * 6
    assert first.len_generator == (10, 11, 12, 13, 14, 15)
    assert second.reasons == ("set: 4 of 4 rows are not AlpacaEval's",)


@pytest.mark.parametrize("turned", [{1}, {0}, {0, 3, 5, 7}, {1, 2, 8, 9}, {4, 6}, set(range(10))])
def test_the_order_in_which_the_answers_were_shown_does_not_matter(
    path: Path, turned: set[int]
) -> None:
    rows = [swapped(row) if n in turned else row for n, row in enumerate(ROWS)]
    assert figures(write(path, rows)) == EXPECTED


def test_between_one_pair_the_order_of_the_first_vote_counts(path: Path) -> None:
    rows = [vote("a", 2), swapped(vote("a", 1.5, n=1)), vote("a", 2, n=2)]
    assert figures(write(path, rows)) == {("mix", "a"): (3, pytest.approx(500 / 6))}
    assert figures(write(path, rows[1:])) == {("a", "mix"): (2, 25.0)}
    for baseline, other, wins in (("a", "mix", 75.0), ("mix", "a", 25.0)):
        ((found,),) = score_file(path, None, None, None, baseline).scores
        assert (found.generator, found.baseline, found.win_rate) == (other, baseline, wins)


def test_a_baseline_without_votes_is_told(path: Path) -> None:
    with pytest.raises(PreferencesError, match=r"no verdicts for --baseline 'c'.*baselines: a, b"):
        score_file(write(path, ROWS), None, None, None, "c")


def test_votes_of_two_mixtures_stay_apart(path: Path) -> None:
    rows = [vote("a", 2), vote("a", 1, n=1, generator_2="other"), vote("b", 2, generator_2="other")]
    assert figures(write(path, rows)) == {
        ("mix", "a"): (1, 100.0),
        ("other", "a"): (1, 0.0),
        ("other", "b"): (1, 100.0),
    }


def test_the_same_question_may_be_asked_again(path: Path) -> None:
    rows = [vote("a", 2), vote("a", 1, lengths=(4, 5)), vote("a", 2, lengths=(3, 6)), vote("b", 1)]
    assert figures(write(path, rows))["mix", "a"] == (3, pytest.approx(200 / 3))


def test_a_vote_without_a_verdict_is_counted_as_missing(path: Path) -> None:
    (found,) = score_file(
        write(path, [vote("a", None), vote("a", 2, n=1)]), None, None, None, None
    ).scores
    assert (found[0].n, found[0].missing, found[0].win_rate) == (1, 1, 100.0)


@pytest.mark.parametrize(
    ("share", "n", "low", "high"),
    [  # by the formula in Brown, Cai and DasGupta (2001), section 3.1.1
        (0.5, 10, 23.659, 76.341),
        (1.0, 5, 56.552, 100.0),
        (0.0, 5, 0.0, 43.448),
        (0.75, 100, 65.696, 82.451),
    ],
)
def test_the_interval_is_wilsons(share: float, n: int, low: float, high: float) -> None:
    assert wilson(share, n) == pytest.approx((low, high), abs=0.01)


def test_length_control_takes_the_part_of_length_out(path: Path) -> None:
    """The longer answer always wins, and the mixture's is longer in two of three votes."""
    rows = [vote("a", 2 if n % 3 else 1, n=n, lengths=(50, 90 if n % 3 else 10)) for n in range(60)]
    ((found,),) = score_file(write(path, rows), None, None, None, None).scores
    assert found.win_rate == pytest.approx(200 / 3)
    assert found.lc is not None
    assert found.lc < 60
    assert "LC without the difficulty of instructions" in found.reasons


@pytest.mark.parametrize(
    ("count", "lengths"), [(4, (3, 5)), (30, (3, 5))], ids=["too few", "all of one difference"]
)
def test_where_lengths_tell_nothing_there_is_no_length_control(
    path: Path, count: int, lengths: tuple[int, int]
) -> None:
    rows = [vote("a", 2, n=n, lengths=lengths) for n in range(count)]
    ((found,),) = score_file(write(path, rows), None, None, None, None).scores
    assert (found.lc, found.chosen_c) == (None, None)
    assert not [reason for reason in found.reasons if reason.startswith("LC")]


def test_without_scikit_learn_there_is_a_win_rate(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "find_spec", lambda _: None)
    rows = [vote("a", 2, n=n, lengths=(n, 2 * n)) for n in range(1, 30)]
    ((found,),) = score_file(write(path, rows), None, None, None, None).scores
    assert (found.win_rate, found.lc) == (100.0, None)


def test_a_difficulty_file_serves_votes_too(path: Path, tmp_path: Path) -> None:
    rows = [vote("a", 2 - n % 2, n=n, lengths=(10, 10 + n)) for n in range(20)]
    hard = tmp_path / "difficulty.csv"
    lines = [f"question {n},0.5" for n in range(20)]
    hard.write_text("\n".join(["instruction,instruction_difficulty", *lines]))
    ((found,),) = score_file(write(path, rows), hard, None, None, None).scores
    assert found.lc is not None
    assert "LC without the difficulty of instructions" not in found.reasons


def without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([vote("a", 3)], "row 1, column 'preference': '3' is not a number from 1 to 2"),
        ([vote("a", 2), vote("a", 0.5, n=1)], "row 2, column 'preference': '0.5' is not a number"),
        ([vote("a", "mixture")], "'mixture' is not a number from 1 to 2"),
        ([vote("a", True)], "'True' is not a number from 1 to 2"),
        ([vote("", 2)], "row 1, column 'generator_1': '' is not a name"),
        ([vote("a", 2, generator_2=None)], "row 1, column 'generator_2': '' is not a name"),
        ([vote("mix", 2)], "column 'generator_2': 'mix' is not another name than that of generator_1"),
        ([vote("a", 2, instruction=" ")], "row 1, column 'instruction': '' is not a name"),
        (
            [vote("a", 2), vote("a", 1)],
            "row 2, column 'instruction': 'question 0' is not one whose two outputs have no vote yet",
        ),
        ([vote("a", 2), swapped(vote("a", 2))], "row 2, column 'instruction'"),
        ([without(vote("a", 2), "output_1")], "no column 'output_1' among ["),
        ([without(vote("a", 2), "preference")], "no column 'preference' among ["),
        ([vote("a", 2), without(vote("a", 2, n=1), "generator_1")], "no column 'generator_1' among ["),
        ([vote("a", 2), "text"], "votes.json, row 2"),
        ([], "no lines below its header"),
        ({"format": "slimmoa-chats", "chats": []}, "holds one dict ('format', 'chats')"),
        ({}, "votes.json"),
    ],
    ids=[str(n) for n in range(17)],
)
def test_what_is_wrong_is_named(path: Path, rows: Any, says: str) -> None:
    with pytest.raises(PreferencesError) as caught:
        score_file(write(path, rows), None, None, None, None)
    assert says in str(caught.value)
    assert "votes.json" in str(caught.value)


def test_annotations_with_an_annotator_are_no_votes(path: Path) -> None:
    assert not are_votes(write(path, [vote("a", 2, annotator="gpt-4")]))
    assert are_votes(write(path, [vote("a", 2)]))


@pytest.mark.parametrize("options", [["--preferences"], []], ids=["option", "argument"])
def test_the_command_shows_a_table_for_each_member(path: Path, options: list[str]) -> None:
    write(path, ROWS)
    shown = CliRunner().invoke(app, ["bench", "score", *options, str(path)], env={"COLUMNS": "300"})
    assert shown.exit_code == 0
    assert "against a" in shown.stdout
    assert "against b" in shown.stdout
    line = next(line for line in shown.stdout.splitlines() if line.split()[:1] == ["mix"])
    assert line.split()[:8] == ["mix", "6", "75.00", "±", "17.08", "36.5", "to", "94.0"]
    told = CliRunner().invoke(app, ["bench", "score", *options, str(path), "--judge", "me", "--json"])
    first = json.loads(told.stdout)["scores"][0]
    assert first["judge"] == "me"
    assert first["interval"] == [pytest.approx(36.5, abs=0.1), pytest.approx(94.0, abs=0.1)]
