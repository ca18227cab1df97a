"""Differences, their intervals and the correlation, over invented verdicts."""

import json
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from jobs.ablation.effects import (
    Contrast,
    Correlation,
    Estimate,
    Wins,
    against_best,
    contrast,
    correlation,
)
from jobs.scores.preferences import Preferences

ROWS = 400


def verdicts_on(generator: str, *preferences: float | None) -> Preferences:
    """Verdicts with these values on a generator, for the rows from 0 on."""
    ones = (1,) * len(preferences)
    return Preferences(generator, tuple(range(len(preferences))), preferences, ones, ones)


def random_verdicts(generator: str, better: float, seed: int, rows: int = ROWS) -> Preferences:
    """Random verdicts on a generator.

    Args:
        generator: Its name.
        better: How much better than the baseline it is, in log-odds.
        seed: Seed of the noise. The difficulty of each row is the same for all generators.
        rows: Number of rows.
    """
    hard = np.random.default_rng(0).normal(0, 2, rows)
    noise = np.random.default_rng(seed).normal(better, 0.5, rows)
    return verdicts_on(generator, *(1 + 1 / (1 + np.exp(-(hard + noise)))))


def test_a_contrast_is_over_the_rows_judged_for_both() -> None:
    wins = Wins([verdicts_on("a", 2.0, 1.5, None, 1.25), verdicts_on("b", 1.0, 1.5, 2.0, 1.75)], rows=6)
    found = contrast(wins, "a", "b")
    assert (found.what, found.minus, found.n, found.missing) == ("a", "b", 3, 3)
    assert found.win_rate == pytest.approx((100 + 50 + 25) / 3)
    assert found.other_win_rate == pytest.approx((0 + 50 + 75) / 3)
    assert found.difference.value == pytest.approx((100 + 0 - 50) / 3)
    assert found.difference.low is not None
    assert found.difference.high is not None
    assert -50 <= found.difference.low < found.difference.high <= 100


def test_the_baseline_is_even_with_itself_on_every_row_that_is_judged() -> None:
    some = [verdicts_on("a", 2.0, 1.75, None), verdicts_on("b", None, 1.5, 1.5)]
    wins = Wins([replace(each, baseline="base") for each in some], rows=4)
    found = contrast(wins, "a", "base")
    assert (found.n, found.other_win_rate, found.difference.value) == (2, 50, 37.5)
    assert against_best(wins, "a", ["b", "base"]).n == 1
    # A verdict of its own, as that of identical answers, is as good.
    own = [*some, verdicts_on("base", 1.5, 1.5, 1.5)]
    again = Wins([replace(each, baseline="base") for each in own], rows=4)
    assert contrast(again, "a", "base") == found


def test_rows_are_matched_by_their_index() -> None:
    some = Preferences("a", (2, 5), (2.0, 1.0), (1, 1), (1, 1))
    other = Preferences("b", (1, 2), (1.0, 2.0), (1, 1), (1, 1))
    found = contrast(Wins([some, other], rows=6), "a", "b")
    assert (found.n, found.difference.value) == (1, 0)


def test_an_interval_is_about_two_standard_errors_of_the_differences_on_each_side() -> None:
    wins = Wins([random_verdicts("a", 0.5, 1), random_verdicts("b", 0.0, 2)], ROWS)
    found = contrast(wins, "a", "b").difference
    first, second = wins.columns(["a", "b"])
    error = 1.96 * np.std(first - second, ddof=1) / ROWS**0.5
    assert found.value is not None
    assert found.low == pytest.approx(found.value - error, abs=0.1 * error)
    assert found.high == pytest.approx(found.value + error, abs=0.1 * error)
    # Unpaired, how hard the rows are would be part of it.
    assert 3 * error < 1.96 * np.hypot(np.std(first), np.std(second)) / ROWS**0.5


def test_the_same_verdicts_give_the_same_interval() -> None:
    found = [
        contrast(Wins([random_verdicts("a", 0.5, 1), random_verdicts("b", 0, 2)], ROWS), "a", "b")
        for _ in range(2)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((2.0, 1.5), (2.0, 1.5), Estimate(0, 0, 0)),
        ((2.0, 1.5), (1.5, 1.0), Estimate(50, 50, 50)),
        ((2.0,), (1.5,), Estimate(50)),
        ((None,), (1.5,), Estimate()),
        ((), (1.5,), Estimate()),
    ],
)
def test_rows_that_give_no_interval_give_no_warning(
    first: tuple[float | None, ...], second: tuple[float | None, ...], expected: Estimate
) -> None:
    found = contrast(Wins([verdicts_on("a", *first), verdicts_on("b", *second)], rows=2), "a", "b")
    assert found.difference == expected
    assert "NaN" not in json.dumps(asdict(found))


def test_a_generator_that_was_never_judged_leaves_no_rows() -> None:
    found = contrast(Wins([verdicts_on("a", 2.0, 2.0)], rows=2), "a", "b")
    assert found == Contrast("a", "b", 0, 2, None, None, Estimate())
    assert against_best(Wins([verdicts_on("a", 2.0, 2.0)], rows=2), "a", ["b"]) == found


def test_the_best_is_chosen_on_rows_judged_for_all() -> None:
    # b's lead is on a row that c does not have.
    wins = Wins(
        [verdicts_on("a", *[1.5] * 3), verdicts_on("b", 1.1, 1.2, 2), verdicts_on("c", 1.3, 1.4, None)],
        rows=3,
    )
    found = against_best(wins, "a", ["b", "c"])
    assert (found.minus, found.n, found.missing) == ("c", 2, 1)
    assert found.difference.value == pytest.approx(15)


def test_a_clear_best_is_compared_as_if_it_had_been_named() -> None:
    wins = Wins(
        [random_verdicts("a", 1, 1), random_verdicts("b", 0, 2), random_verdicts("c", -1, 3)], ROWS
    )
    best, named = against_best(wins, "a", ["b", "c"]), contrast(wins, "a", "b")
    assert best.minus == "b"
    assert asdict(best.difference) == pytest.approx(asdict(named.difference), abs=0.1)


def test_a_choice_among_equals_widens_the_interval() -> None:
    equals = [f"e{n}" for n in range(6)]
    wins = Wins(
        [random_verdicts("a", 0, 99), *(random_verdicts(name, 0, n) for n, name in enumerate(equals))],
        ROWS,
    )
    best = against_best(wins, "a", equals)
    named = contrast(wins, "a", best.minus)
    assert best.difference.value == named.difference.value
    assert best.difference.low is not None
    assert best.difference.high is not None
    assert best.difference.low <= 0 <= best.difference.high


def test_the_interval_covers_that_another_might_have_been_the_best() -> None:
    # Each is the best on half of the rows, so in nearly every draw of rows one of them is above a.
    even, odd = [2.0, 1.0] * 50, [1.0, 2.0] * 50
    wins = Wins(
        [verdicts_on("a", *[1.5] * 100), verdicts_on("b", *even), verdicts_on("c", *odd)], rows=100
    )
    best, named = against_best(wins, "a", ["b", "c"]).difference, contrast(wins, "a", "b").difference
    assert best.value == named.value == 0
    assert best.high is not None
    assert named.high is not None
    assert best.high <= 0 < 8 < named.high


def candidates(slope: float, count: int = 6) -> tuple[Wins, dict[str, tuple[str, str]]]:
    """Verdicts on models from bad to good and on their mixtures, whose quality has this slope."""
    better = np.linspace(-1, 1, count)
    pairs = {f"m{n}": (f"m{n}", f"by-m{n}") for n in range(count)}
    alone = [random_verdicts(f"m{n}", b, n) for n, b in enumerate(better)]
    mixtures = [random_verdicts(f"by-m{n}", slope * b, 50 + n) for n, b in enumerate(better)]
    return Wins([*alone, *mixtures], ROWS), pairs


@pytest.mark.parametrize(("slope", "sign"), [(0.5, 1), (-0.5, -1)])
def test_a_correlation_is_that_of_the_win_rates(slope: float, sign: int) -> None:
    wins, pairs = candidates(slope)
    found = correlation(wins, pairs)
    rates = wins.columns([name for side in zip(*pairs.values(), strict=True) for name in side]).mean(1)
    alone, mixtures = rates[: len(pairs)], rates[len(pairs) :]
    assert (found.candidates, found.n, found.missing) == (6, ROWS, 0)
    assert found.pearson.value == pytest.approx(pearsonr(alone, mixtures).statistic)
    assert found.spearman.value == pytest.approx(spearmanr(alone, mixtures).statistic)
    for each in (found.pearson, found.spearman):
        assert each.low is not None
        assert each.high is not None
        assert -1 <= each.low <= each.high <= 1
        assert sign * each.low > 0.5
        assert sign * each.high > 0.5


def test_mixtures_that_do_not_follow_have_an_interval_around_nothing() -> None:
    # By chance these six have r = -0.69.
    found = correlation(*candidates(0.0)).pearson
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high


@pytest.mark.parametrize("count", [0, 1, 2])
def test_two_candidates_do_not_correlate(count: int) -> None:
    wins, pairs = candidates(1.0)
    some = dict(list(pairs.items())[:count])
    found = correlation(wins, some)
    assert (found.candidates, found.pearson, found.spearman) == (count, Estimate(), Estimate())


def test_without_variation_or_rows_there_is_no_correlation() -> None:
    wins = Wins(
        [verdicts_on("a", 2, 1.5), verdicts_on("b", 1.5, 2), verdicts_on("c", 1.75, 1.75)], rows=2
    )
    same = {name: (name, name) for name in "abc"}
    assert correlation(wins, same) == Correlation(3, 2, 0, Estimate(), Estimate())
    unjudged = {**same, "d": ("d", "a")}
    assert correlation(wins, unjudged) == Correlation(4, 0, 2, Estimate(), Estimate())


def test_rounding_errors_are_no_variation() -> None:
    values = [1 + 1 / n for n in range(2, 32)]
    orders = [values[n:] + values[:n] for n in (0, 7, 20)]
    wins = Wins([verdicts_on(name, *order) for name, order in zip("abc", orders, strict=True)], rows=30)
    assert len(set(wins.columns(["a", "b", "c"]).mean(axis=1))) > 1
    assert correlation(wins, {name: (name, name) for name in "abc"}).pearson == Estimate()


def test_resamples_without_variation_are_no_part_of_the_interval() -> None:
    # Half of all resamples of two rows are one row twice, and the second one has no variation.
    wins = Wins(
        [verdicts_on("a", 1.0, 1.5), verdicts_on("b", 1.5, 1.5), verdicts_on("c", 2.0, 1.5)], rows=2
    )
    assert correlation(wins, {name: (name, name) for name in "abc"}).pearson == Estimate(1, 1, 1)


def test_intervals_become_narrow_with_the_rows() -> None:
    widths = []
    for rows in (50, 200, 800):
        wins = Wins([random_verdicts("a", 0.5, 1, rows), random_verdicts("b", 0, 2, rows)], rows)
        found = contrast(wins, "a", "b").difference
        assert found.low is not None
        assert found.high is not None
        widths.append(found.high - found.low)
    assert all(1.6 < wide / narrow < 2.5 for wide, narrow in pairwise(widths))
