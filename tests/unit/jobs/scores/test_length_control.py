"""Length control against the leaderboard's figures, and on data whose true answer is known."""

import csv
import time
from pathlib import Path

import numpy as np
import pytest

from jobs.scores.columns import PreferencesError
from jobs.scores.difficulty import read_difficulties
from jobs.scores.folds import leaderboard_folds
from jobs.scores.length_control import FOLDS, length_controlled
from jobs.scores.preferences import Gamed, Preferences, read_gamed, read_preferences
from jobs.scores.score import Score, score

DATA = Path(__file__).parents[4] / "../shared/data"
NEEDED = ("preferences_15models.csv.gz", "leaderboard_alpaca_eval_2.csv", "df_gamed_reconstructed.csv")
needs_data = pytest.mark.skipif(
    not all((DATA / name).is_file() for name in NEEDED), reason=f"{', '.join(NEEDED)} not in {DATA}"
)
SIZE = 805


def published(*, with_gamed: bool) -> dict[str, Score]:
    found = read_preferences(
        DATA / NEEDED[0], judge="weighted_alpaca_eval_gpt4_turbo", baseline="gpt4_1106_preview"
    )
    difficulties = read_difficulties(DATA / "instruction_difficulty.csv")
    gamed = read_gamed(DATA / NEEDED[2], "reconstruction") if with_gamed else None
    return {each.generator: score(each, difficulties.of(each), gamed) for each in found}


def leaderboard() -> dict[str, tuple[float, float]]:
    with (DATA / NEEDED[1]).open() as file:
        lines = list(csv.DictReader(file))
    return {line["name"]: (float(line["win_rate"]), float(line["lc"])) for line in lines}


@needs_data
def test_the_leaderboard_is_reproduced_from_its_judgements() -> None:
    began = time.perf_counter()
    scores, official = published(with_gamed=True), leaderboard()
    print(f"\n{len(scores)} generators scored in {time.perf_counter() - began:.1f} s")
    assert len(scores) == 15
    assert set(scores) - set(official) == {"text_davinci_003"}  # not on AlpacaEval 2's
    errors = {}
    for name in scores.keys() & official.keys():
        found, (win_rate, lc) = scores[name], official[name]
        assert found.lc is not None
        assert lc is not None
        assert found.win_rate == pytest.approx(win_rate, abs=1e-6), name
        assert found.lc == pytest.approx(lc, abs=0.15), name
        errors[name] = abs(found.lc - lc)
        print(f"{name:36}{win_rate:10.5f}{lc:10.5f}{found.lc:10.5f}  C = {found.chosen_c:.4g}")
    mean = float(np.mean(list(errors.values())))
    print(f"LC's error: mean {mean:.4f}, worst {max(errors.values()):.4f} points")
    assert mean < 0.05
    # All but a close call or two over C are not just near: they are the same regression.
    assert sum(error < 1e-4 for error in errors.values()) >= len(errors) - 2


@needs_data
def test_without_gamed_rows_the_figures_are_others_and_say_so() -> None:
    scores, official = published(with_gamed=False), leaderboard()
    errors = [abs((s.lc or 0) - official[name][1]) for name, s in scores.items() if name in official]
    assert max(errors) > 1
    for found in scores.values():
        assert not [reason for reason in found.reasons if reason.startswith(("set:", "baseline:"))]
        assert "not comparable with the leaderboard" in found.note
        assert "LC without gamed rows" in found.note


def drawn(
    by_length: float, by_difficulty: float, constant: float
) -> tuple[Preferences, dict[int, float]]:
    """Preferences that the regression's own model makes, with its weights."""
    random = np.random.RandomState(7)
    lengths = random.randint(200, 4000, SIZE)
    hard = random.normal(size=SIZE)
    shorter_by = 2000.0 - lengths
    length = np.tanh(shorter_by / shorter_by.std(ddof=1))
    wins = 1 / (1 + np.exp(-(by_length * length + by_difficulty * hard + constant)))
    preferences = Preferences(
        "drawn", tuple(range(SIZE)), tuple(1 + wins), (2000,) * SIZE, tuple(map(int, lengths))
    )
    return preferences, dict(enumerate(hard))


@pytest.mark.parametrize("by_difficulty", [0.0, 0.8])
@pytest.mark.parametrize("constant", [-1.5, 0.0, 1.0])
@pytest.mark.parametrize("by_length", [-2.0, 0.0, 1.0])
def test_the_win_rate_at_equal_length_is_found(
    by_length: float, by_difficulty: float, constant: float
) -> None:
    preferences, difficulty = drawn(by_length, by_difficulty, constant)
    hard = np.array(list(difficulty.values()))
    true = 100 * np.mean(1 / (1 + np.exp(-(by_difficulty * hard + constant))))
    assert length_controlled(preferences, difficulty, None).win_rate == pytest.approx(true, abs=0.1)


def test_gamed_rows_hold_the_length_weight_back() -> None:
    """Rows in which length decides nothing draw its weight to zero, and LC to the plain win rate."""
    preferences, difficulty = drawn(-2.0, 0.0, -1.0)
    hard = tuple(difficulty.values())
    indifferent = Gamed("test", (0.5,) * 100 * SIZE, tuple(np.linspace(-3, 3, 100 * SIZE)), hard * 100)
    plain = 100 * float(np.mean(preferences.wins()))
    free, held = (length_controlled(preferences, difficulty, g).win_rate for g in (None, indifferent))
    assert plain - free > 2  # it wins by its length
    assert abs(held - plain) < (plain - free) / 3


def given(wins: list[float | None], lengths: list[int]) -> Preferences:
    preferences = tuple(None if win is None else 1 + win for win in wins)
    return Preferences("x", tuple(range(len(wins))), preferences, (50,) * len(wins), tuple(lengths))


EASY = dict.fromkeys(range(SIZE), 0.0)


@pytest.mark.parametrize(
    ("wins", "lengths", "expected"),
    [
        ([0.0] * 40, list(range(40)), 0),  # liblinear alone would call one outcome a draw
        ([1.0] * 40, list(range(40)), 100),
        ([0.5] * 40, list(range(40)), 50),
        ([0.5] * 40, [50] * 40, 50),  # identical answers
        ([0.75] * 40, [70] * 40, 75),  # all equally longer: nothing to explain
        ([0.0] * FOLDS, [1] * FOLDS, 0),
    ],
)
def test_extremes(wins: list[float | None], lengths: list[int], expected: float) -> None:
    assert length_controlled(given(wins, lengths), EASY, None).win_rate == pytest.approx(
        expected, abs=1
    )


def test_a_row_without_a_verdict_has_no_say_in_the_weights_but_is_predicted() -> None:
    """As officially: the figure is about all rows, also those that the judge failed on."""
    preferences, difficulty = drawn(0.0, 1.0, 0.0)
    whole = length_controlled(preferences, difficulty, None).win_rate
    hardest = sorted(difficulty, key=lambda row: difficulty[row])[:100]
    values = tuple(
        None if row in hardest else value for row, value in enumerate(preferences.preferences)
    )
    holed = Preferences(
        "drawn", preferences.rows, values, preferences.len_baseline, preferences.len_generator
    )
    judged = 100 * float(np.mean(holed.wins()))
    assert judged - whole > 3
    assert length_controlled(holed, difficulty, None).win_rate == pytest.approx(whole, abs=0.1)


@pytest.mark.parametrize(
    ("preferences", "message"),
    [
        (given([0.5] * 4 + [None], [1] * 5), "length control needs 5 judged rows or more, not 4"),
        (given([], []), "length control needs 5 judged rows or more, not 0"),
        (
            given([0.5] * 806, [1] * 806),
            "no instruction difficulty for row 805 of 'x'; there are 805, of rows 0 to 804",
        ),
    ],
)
def test_what_cannot_be_controlled_is_refused(preferences: Preferences, message: str) -> None:
    with pytest.raises(PreferencesError) as caught:
        length_controlled(preferences, EASY, None)
    assert str(caught.value) == message


@pytest.mark.parametrize("count", [5, 16, 17, 18, 100, 2413, 2415])
def test_folds_are_those_of_numpys_portable_quicksort(count: int) -> None:
    # 16-bit keys: NumPy has no vectorised argsort for them. GroupKFold sorts 64-bit ones.
    order = np.argsort(np.zeros(count, np.int16))[::-1]
    assert leaderboard_folds(count, FOLDS)[order].tolist() == [n % FOLDS for n in range(count)]
