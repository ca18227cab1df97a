"""The plots of a report and their captions.

Each function that draws a plot takes a `prefix`, which makes the ids in the plot's SVG unique in the
page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.ablation.effects import Contrast
from jobs.ablation.findings import Findings
from jobs.report import PairwiseResults
from jobs.report.facts import GeneratorSummary
from jobs.report.plots import Box, Interval, Panel, Side, bars, boxes, intervals, over_time, scatter
from jobs.report.work import WorkOverTime
from jobs.scores.score import NORMAL_95, Score

Sides = Mapping[str, Side]
"""The side of each generator, by its name; the side decides the colour of the generator's marks."""
HOUR_S = 3600
"""Seconds of an hour."""
MINUTE_S = 60
"""Seconds of a minute."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot with its texts."""

    title: str
    """What the plot shows; screen readers read this title."""
    svg: str
    caption: str
    """How to read the plot."""


def sides(generators: Sequence[GeneratorSummary]) -> Sides:
    """The side of each generator, by its name."""
    kinds: Mapping[str, Side] = {"mixture": "mixture", "model": "member"}
    return {each.name: kinds.get(each.kind, "other") for each in generators}


def win_rates(judged: PairwiseResults, colours: Sides, prefix: str) -> Plot | None:
    """Plot the win rates against one baseline.

    Returns:
        The plot, or None if there is no win rate yet.
    """
    shown = [_interval(each, colours) for each in judged.scores if each.win_rate is not None]
    if not shown:
        return None
    caption = (
        f"Over {_counts([each.n for each in judged.scores])} judged rows, with 95% intervals. "
        "At the dashed line the baseline wins as often. All are judged on the same rows, so intervals "
        "that overlap do not yet say that two are equal."
    )
    if any(each.lc is not None for each in judged.scores):
        caption += " Hollow diamonds: at equal length."
    title = f"Win rate against {judged.baseline}"
    svg = intervals(shown, axis="win rate (% of rows)", reference=50, prefix=prefix, label=title)
    return Plot(title, svg, caption)


def _interval(score: Score, colours: Sides) -> Interval:
    assert score.win_rate is not None
    side = colours.get(score.generator, "other")
    if score.standard_error is None:
        return Interval(score.generator, score.win_rate, side=side, mark=score.lc)
    margin = NORMAL_95 * score.standard_error
    low, high = max(0.0, score.win_rate - margin), min(100.0, score.win_rate + margin)
    return Interval(score.generator, score.win_rate, low, high, side, score.lc)


def marginal_gains(findings: Findings, prefix: str) -> Plot | None:
    """Plot what each proposer adds.

    Returns:
        The plot, or None if the ablation did not compare proposers, or no gain could be measured.
    """
    shown = [
        _bar(f"{each.model} (added)" if each.added else each.model, each.contrast)
        for each in sorted(findings.gains, key=lambda each: -(each.contrast.difference.value or 0))
        if each.contrast.difference.value is not None
    ]
    if not shown:
        return None
    title = "Marginal gain of each proposer"
    svg = bars(shown, axis="mixture with it − without it (points)", prefix=prefix, label=title)
    counts = _counts([each.contrast.n for each in findings.gains])
    caption = (
        f"Points of win rate over {counts} rows, with 95% intervals (paired bootstrap). "
        "Right of zero the proposer helps; an interval that holds zero does not show that it does."
    )
    return Plot(title, svg, caption)


def _bar(name: str, contrast: Contrast) -> Interval:
    difference = contrast.difference
    return Interval(name, difference.value or 0.0, difference.low, difference.high, "mixture")


def aggregators(findings: Findings, prefix: str) -> Plot | None:
    """Plot the win rate of each candidate alone against the win rate of the mixture that it aggregates.

    Returns:
        The plot, or None if the ablation did not compare aggregators, or a candidate has no win rates.
    """
    found = [each.over_alone for each in findings.aggregators]
    points = [
        (each.other_win_rate, each.win_rate)
        for each in found
        if each.other_win_rate is not None and each.win_rate is not None
    ]
    if len(points) < len(found) or not points:
        return None
    title = "Each candidate alone and as the aggregator"
    svg = scatter(
        points, x="alone: win rate (%)", y="as aggregator: win rate (%)", prefix=prefix, label=title
    )
    caption = (
        f"{_counts([each.n for each in found])} rows each; the numbers are those of the table. Above "
        "the dashed line a model is better at aggregating than alone."
    )
    return Plot(title, svg, caption)


def lengths(generators: Sequence[GeneratorSummary], colours: Sides, prefix: str) -> Plot | None:
    """Plot the lengths of the answers of each generator.

    Returns:
        The plot, or None before the first answer.
    """
    shown = [
        Box(each.name, each.lengths.percentiles, each.lengths.mean, colours[each.name])
        for each in generators
        if each.lengths
    ]
    if not shown:
        return None
    title = "Length of the answers"
    svg = boxes(shown, axis="characters", prefix=prefix, label=title)
    counts = _counts([each.lengths.count for each in generators if each.lengths])
    caption = (
        f"{counts} answers of each generator. The middle half is in the box, nine of ten between the "
        "whiskers, the bar is the median, the diamond the mean. Judges tend to prefer longer answers."
    )
    return Plot(title, svg, caption)


def work(done: WorkOverTime, prefix: str) -> Plot:
    """Plot rows answered, tokens per second and swaps over the time of work."""
    unit, seconds = ("hours", HOUR_S) if done.seconds > 3 * HOUR_S else ("minutes", MINUTE_S)
    edges = [edge / seconds for edge in done.edges]
    panels = [
        Panel("rows answered, all generators", edges, done.rows),
        Panel("tokens per second", edges, done.tokens_per_s),
        Panel("swaps so far", edges, done.swaps),
    ]
    title = "Work over time"
    resumed = [at / seconds for at in done.resumed]
    svg = over_time(panels, resumed=resumed, axis=f"{unit} worked", prefix=prefix, label=title)
    caption = f"{done.tokens:,} tokens in {done.calls:,} calls and {done.swaps[-1]:,.0f} swaps."
    if resumed:
        caption += " Dashed lines: the run was resumed; the time between is cut out."
    return Plot(title, svg, caption)


def _counts(counts: Sequence[int]) -> str:
    """A number of rows, or the lowest and the highest one if they differ."""
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
