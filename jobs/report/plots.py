"""Draws the plots of a report as SVG for use inside a page.

Colours are the page's custom properties, for example `var(--mixture)`, so that one drawing serves light
and dark mode. Text stays text, in the page's font. A prefix makes the ids unique over all plots of a
page.

The arguments that several functions share:

    axis      label of the horizontal axis
    prefix    begins all ids in the SVG
    label     what the plot shows, for screen readers
"""

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Side = Literal["mixture", "member", "other"]
"""Whether a generator is a mixture, a model alone or a file of outputs; this decides its colour."""

COLOURS = {
    name: f"#0101{number:02x}"
    for number, name in enumerate(("ink", "muted", "grid", "mixture", "member", "other"), 1)
}
"""A distinct colour for each custom property of the page. matplotlib does not accept `var(...)`, so it
draws with these colours, and `_svg` replaces them."""
WIDTH_IN = 5.0
"""Width of a plot in inches: 360 points, the width of a phone, where text has its normal size."""
ROW_IN = 0.3
"""Height of one generator's row in inches."""
LABEL_CHARACTERS = 27
"""A longer name beside a plot is shortened, because it would leave too little width for the plot."""
NAMESPACE = "http://www.w3.org/2000/svg"
LINK = "{http://www.w3.org/1999/xlink}href"
"""The attribute of references to ids in matplotlib's SVG."""
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "slimmoa",  # the same data give the same ids
    "font.size": 11,
    "font.family": "sans-serif",
    "text.parse_math": False,  # a dollar sign in a name begins no formula
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.edgecolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
    "grid.color": COLOURS["grid"],
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
}
"""matplotlib's settings for all plots."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A named value with its interval."""

    name: str
    value: float
    low: float | None = None
    """Lower end of the interval; None if there is no interval."""
    high: float | None = None
    """Upper end of the interval; None if there is no interval."""
    side: Side = "other"
    mark: float | None = None
    """A second value, drawn as a hollow diamond; None draws nothing."""


@dataclass(frozen=True, slots=True)
class Box:
    """A named distribution."""

    name: str
    percentiles: tuple[float, float, float, float, float]
    """The percentiles 5, 25, 50, 75 and 95."""
    mean: float
    side: Side = "other"


@dataclass(frozen=True, slots=True)
class Panel:
    """One line of a plot over time."""

    label: str
    """What the values are."""
    edges: Sequence[float]
    """Edges of the time steps; there is one more edge than values."""
    values: Sequence[float]
    """The value in each step, from `edges[i]` to `edges[i + 1]`."""


def intervals(
    shown: Sequence[Interval], *, axis: str, reference: float, prefix: str, label: str
) -> str:
    """Draw points with their intervals, one below the other, and a line at the reference value."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = _figure(len(shown))
        axes.axvline(reference, color=COLOURS["muted"], linestyle="--", linewidth=1)
        for row, each in enumerate(shown):
            colour = COLOURS[each.side]
            if each.low is not None and each.high is not None:
                axes.plot([each.low, each.high], [row, row], color=colour, linewidth=2)
            axes.plot(each.value, row, "o", color=colour, markersize=6)
            if each.mark is not None:
                axes.plot(each.mark, row, "D", color=colour, markersize=6, fillstyle="none")
        _name_rows(axes, [each.name for each in shown], axis)
        return _svg(figure, prefix, label)


def bars(shown: Sequence[Interval], *, axis: str, prefix: str, label: str) -> str:
    """Draw bars from zero with their intervals, one below the other."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = _figure(len(shown))
        for row, each in enumerate(shown):
            axes.barh(row, each.value, height=0.62, color=COLOURS[each.side], alpha=0.75)
            if each.low is not None and each.high is not None:
                axes.plot([each.low, each.high], [row, row], color=COLOURS["ink"], linewidth=1.5)
        axes.axvline(0, color=COLOURS["ink"], linewidth=1)
        _name_rows(axes, [each.name for each in shown], axis)
        return _svg(figure, prefix, label)


def scatter(points: Sequence[tuple[float, float]], *, x: str, y: str, prefix: str, label: str) -> str:
    """Draw points, numbered from 1 in their order, and the diagonal where x and y are equal.

    `x` and `y` label the axes.
    """
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH_IN, 3.8))
        axes = figure.add_subplot()
        for number, (across, up) in enumerate(points, 1):
            axes.plot(across, up, "o", color=COLOURS["mixture"], markersize=6)
            axes.annotate(str(number), (across, up), (6, 4), textcoords="offset points")
        axes.margins(0.12)
        axes.autoscale_view()
        axes.autoscale(False)  # the diagonal goes as far as the points do
        axes.axline((0, 0), slope=1, color=COLOURS["muted"], linestyle="--", linewidth=1)
        axes.grid(True)
        axes.set(xlabel=x, ylabel=y)
        return _svg(figure, prefix, label)


def boxes(shown: Sequence[Box], *, axis: str, prefix: str, label: str) -> str:
    """Draw box plots, one below the other.

    The box contains half of the values, the whiskers nine tenths; a diamond marks the mean.
    """
    with matplotlib.rc_context(SETTINGS):
        figure, axes = _figure(len(shown))
        for row, each in enumerate(shown):
            ends = zip(("whislo", "q1", "med", "q3", "whishi"), each.percentiles, strict=True)
            line = {"color": COLOURS[each.side], "linewidth": 1.5}
            axes.bxp(
                [dict(ends) | {"mean": each.mean}],
                positions=[row],
                widths=0.5,
                orientation="horizontal",
                showfliers=False,
                showmeans=True,
                manage_ticks=False,
                boxprops=line,
                whiskerprops=line,
                capprops=line,
                medianprops=line | {"linewidth": 3},
                meanprops={
                    "marker": "D",
                    "markersize": 4,
                    "markerfacecolor": COLOURS["ink"],
                    "markeredgecolor": COLOURS["ink"],
                },
            )
        _name_rows(axes, [each.name for each in shown], axis)
        axes.set_xlim(left=0)
        return _svg(figure, prefix, label)


def over_time(
    panels: Sequence[Panel], *, resumed: Sequence[float], axis: str, prefix: str, label: str
) -> str:
    """Draw panels over one time axis, with a line at each time in `resumed`.

    The times have the unit of the panels' edges.
    """
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH_IN, 1.35 * len(panels) + 0.45))
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
        for axes, panel in zip(grid[:, 0], panels, strict=True):
            axes.stairs(panel.values, panel.edges, color=COLOURS["mixture"], baseline=None)
            for at in resumed:
                axes.axvline(at, color=COLOURS["muted"], linestyle="--", linewidth=1)
            axes.set_title(panel.label, loc="left", fontsize=11, color=COLOURS["ink"])
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_locator(MaxNLocator(3))
            axes.grid(True)
        axes.set_xlabel(axis)
        return _svg(figure, prefix, label)


def _figure(rows: int) -> tuple[Figure, Axes]:
    """An empty figure that is high enough for this many generators."""
    figure = Figure(figsize=(WIDTH_IN, ROW_IN * rows + 0.75))
    return figure, figure.add_subplot()


def _name_rows(axes: Axes, names: Sequence[str], axis: str) -> None:
    """Put the names beside the rows, the first one on top."""
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(True, axis="x")
    axes.set_xlabel(axis)


def _short(name: str) -> str:
    """A name without its middle if it is long. The end stays, because it tells variants apart."""
    if len(name) <= LABEL_CHARACTERS:
        return name
    end = LABEL_CHARACTERS * 2 // 3
    return f"{name[: LABEL_CHARACTERS - end - 1]}…{name[-end:]}"


def _svg(figure: Figure, prefix: str, label: str) -> str:
    """The figure as an SVG element for use inside a page."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        # The browser draws the text in the page's fonts. A glyph that is missing in matplotlib's font
        # only makes the reserved space a little wrong.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(file, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    for metadata in root.findall(f"{{{NAMESPACE}}}metadata"):
        root.remove(metadata)
    for element in root.iter():
        _make_unique(element, prefix)
    for size in ("width", "height"):
        del root.attrib[size]  # the page sets the size
    root.set("role", "img")
    root.set("aria-label", label)
    ElementTree.register_namespace("", NAMESPACE)
    text = ElementTree.tostring(root, encoding="unicode")
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    return text


def _make_unique(element: ElementTree.Element, prefix: str) -> None:
    """Put the prefix before the element's id and before the ids that the element refers to."""
    if "id" in element.attrib:
        element.set("id", f"{prefix}-{element.attrib['id']}")
    if (link := element.attrib.pop(LINK, None)) is not None:
        element.set("href", f"#{prefix}-{link.removeprefix('#')}")
    for name, value in element.attrib.items():
        element.set(name, re.sub(r"url\(#", f"url(#{prefix}-", value))
