"""Shows the findings of an ablation as tables in the terminal."""

from collections.abc import Iterable, Iterator

from rich import box
from rich.console import RenderableType
from rich.table import Table

from jobs.ablation.effects import Contrast, Correlation, Estimate
from jobs.ablation.findings import AggregatorComparison, Findings, Gain, MemberComparison
from jobs.scores.table import format_number, table

TEXT_COLUMNS = ("comparison", "proposer", "aggregator", "source", "nearest")
"""Headings of the columns that are aligned to the left."""
DIFFERENCE = ("points", "95% interval", "n")
"""Headings of the columns that show a contrast."""


def tables(findings: Findings) -> Iterator[RenderableType]:
    """Yield a table of scores, a table for each part that has findings, and a line for each comparison
    that was left out.

    Differences are in percent points of win rate.
    """
    yield table(findings.scores)
    if findings.quantized:
        yield _quantized(findings.quantized)
    if findings.gains:
        yield _gains(findings.gains)
    if findings.aggregators:
        yield _aggregators(findings.aggregators, findings.correlation)
    if findings.members is not None:
        yield _members(findings.members)
    for reason in findings.skipped:
        yield f"left out: {reason}"


def _quantized(contrasts: Iterable[Contrast]) -> Table:
    shown = _empty_table("quantized minus unquantized", "comparison", *DIFFERENCE)
    for each in contrasts:
        shown.add_row(f"{each.what} - {each.minus}", *_difference(each))
    return shown


def _gains(gains: Iterable[Gain]) -> Table:
    columns = "source", "nearest", "Vendi without", "Vendi with"
    shown = _empty_table("what each proposer adds", "proposer", *DIFFERENCE, *columns)
    shown.caption = (
        "+: not in the mixture, added to it. source: same or different family than the others, by the "
        "names of the weights. nearest: the one whose proposals are most similar, 0 to 1. Vendi: "
        "effective number of different proposals."
    )
    for each in gains:
        nearest = "-" if each.nearest is None else f"{each.nearest[0]} {each.nearest[1]:.2f}"
        name = f"+{each.model}" if each.added else each.model
        vendi = format_number(each.vendi_without), format_number(each.vendi_with)
        shown.add_row(name, *_difference(each.contrast), each.source or "-", nearest, *vendi)
    return shown


def _aggregators(aggregators: Iterable[AggregatorComparison], correlation: Correlation | None) -> Table:
    columns = "alone", "mixture", "over alone", "95% interval", "over base", "95% interval", "n"
    shown = _empty_table("each candidate as the aggregator", "aggregator", *columns)
    if correlation is not None:
        shown.caption = (
            f"alone against mixture: Pearson {_estimate(correlation.pearson)}, "
            f"Spearman {_estimate(correlation.spearman)}, over {correlation.candidates} candidates and "
            f"{correlation.n} rows"
        )
    for each in aggregators:
        rates = format_number(each.over_alone.other_win_rate), format_number(each.over_alone.win_rate)
        over_base = _difference(each.over_base)[:2] if each.over_base else ("base", "")
        shown.add_row(
            each.model, *rates, *_difference(each.over_alone)[:2], *over_base, str(each.over_alone.n)
        )
    return shown


def _members(members: MemberComparison) -> Table:
    shown = _empty_table("the mixture minus", "comparison", "calls", *DIFFERENCE)
    shown.caption = (
        f"The mixture takes {members.calls[members.over_best.what]} calls. Who is best was decided by "
        "the same rows; that interval covers the choice."
    )
    best = members.over_best
    lines = [(f"best member, {best.minus}", best)] + [(each.minus, each) for each in members.over_each]
    if (other := members.over_self_moa) is not None:
        lines.append((f"Self-MoA, {other.minus}", other))
    for name, each in lines:
        shown.add_row(name, str(members.calls[each.minus]), *_difference(each))
    return shown


def _empty_table(title: str, *columns: str) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title)
    for name in columns:
        shown.add_column(name, justify="left" if name in TEXT_COLUMNS else "right")
    return shown


def _difference(each: Contrast) -> tuple[str, str, str]:
    """The columns of a contrast: value, interval, and n with the number of missing rows."""
    missing = f" ({each.missing} missing)" if each.missing else ""
    return (
        format_number(each.difference.value, sign="+"),
        _interval(each.difference),
        f"{each.n}{missing}",
    )


def _estimate(each: Estimate) -> str:
    return f"{format_number(each.value, sign='+')} {_interval(each)}".rstrip(" -") or "-"


def _interval(each: Estimate) -> str:
    if each.low is None or each.high is None:
        return "-"
    return f"[{each.low:+.2f}, {each.high:+.2f}]"
