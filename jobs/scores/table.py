"""Shows win rates and mean grades as tables in the terminal."""

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.table import Table

from jobs.judges.verdicts import JudgeSummary
from jobs.scores.grades import NOT_COMPARABLE, Grades
from jobs.scores.score import Score, not_comparable


def table(scores: Sequence[Score]) -> Table:
    """A table of scores.

    If all scores share a reason for not being comparable, the reason stands once, below the table.
    """
    shared = [r for r in (scores[0].reasons if scores else ()) if all(r in s.reasons for s in scores)]
    has_intervals = any(each.interval for each in scores)
    columns = ["win rate ± se", *["95% interval"] * has_intervals, "LC", "mean length"]
    shown = _empty_table("generator", "n", *columns, "judge", "notes")
    shown.title = _each(
        (f"against {s.baseline}", f"gamed rows: {s.gamed_source}", s.date) for s in scores
    )
    shown.caption = not_comparable(shared) or None
    for each in scores:
        own = [reason for reason in each.reasons if reason not in shared]
        notes = [f"{each.missing} missing"] * bool(each.missing) + [not_comparable(own)] * bool(own)
        rate = f"{format_number(each.win_rate)} ± {format_number(each.standard_error)}"
        length = format_number(each.mean_length, 0)
        row = [rate, *[_interval(each)] * has_intervals, format_number(each.lc), length]
        shown.add_row(each.generator, str(each.n), *row, each.judge, "; ".join(notes))
    return shown


def _interval(score: Score) -> str:
    return "-" if score.interval is None else "{:.1f} to {:.1f}".format(*score.interval)


def grade_table(grades: Sequence[Grades]) -> Table:
    """A table of mean grades, with a column for each turn.

    If all grades share a reason for not being comparable, the reason stands once, below the table.
    """
    shared = [r for r in (grades[0].reasons if grades else ()) if all(r in g.reasons for g in grades)]
    turns = sorted({turn for each in grades for turn in each.turns})
    names = [f"turn {turn + 1}" for turn in turns]
    shown = _empty_table("generator", "n", "mean", *names, "judge", "notes")
    shown.title = _each((each.date,) for each in grades)
    shown.caption = f"{NOT_COMPARABLE} ({'; '.join(shared)})" if shared else None
    for each in grades:
        means = [format_number(each.turns.get(turn, (0, None))[1]) for turn in turns]
        # That some grades are missing is said once, by their number.
        own = [r for r in each.reasons if r not in shared and not r.startswith(f"{each.n} graded")]
        notes = "; ".join([f"{each.missing} missing"] * bool(each.missing) + own)
        shown.add_row(each.generator, str(each.n), format_number(each.mean), *means, each.judge, notes)
    return shown


def summary_table(found: Mapping[str, JudgeSummary]) -> Table:
    """A table of how the cases of a judge ended, with a row for each generator."""
    shown = _empty_table("generator", "judged", "identical", "unusable", "failed", "missing", "judge")
    for name, each in found.items():
        counts = (each.judged, each.identical, each.unusable, each.failed, each.missing)
        shown.add_row(name, *map(str, counts), each.judge)
    return shown


def _empty_table(*columns: str) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        shown.add_column(name, justify="left" if name in ("generator", "judge", "notes") else "right")
    return shown


def _each(parts: Iterable[tuple[str, ...]]) -> str:
    """Join the different parts, each of them once."""
    return ", ".join(dict.fromkeys(part for some in parts for part in some))


def format_number(value: float | None, digits: int = 2, sign: str = "") -> str:
    """A number with this many decimals, or a dash for None; sign "+" also marks positive numbers."""
    return "-" if value is None else f"{value:{sign}.{digits}f}"
