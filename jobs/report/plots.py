"""The plots of a report as SVG that stands inside a page.

Colours are the page's custom properties (`var(--mixture)`), so dark mode needs no second drawing; text
stays text, in the page's font; ids are made unique over all plots of a page.
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

# matplotlib knows no `var(...)`: these stand for the page's colours until the SVG is written.
COLOURS = {
    name: f"#0101{number:02x}"
    for number, name in enumerate(("ink", "muted", "grid", "mixture", "member", "other"), 1)
}
WIDTH_IN = 5.0  # 360 points, a phone's width: there, text has about its own size
ROW_IN = 0.3
LABEL_CHARACTERS = 27
NAMESPACE = "http://www.w3.org/2000/svg"
LINK = "{http://www.w3.org/1999/xlink}href"
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "slimmoa",  # the same data, the same page
    "font.size": 11,
    "font.family": "sans-serif",
    "text.parse_math": False,  # names are data: a dollar is a dollar
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


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure by name, with its interval if there is one; mark: a second figure beside it."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    side: Side = "other"
    mark: float | None = None


@dataclass(frozen=True, slots=True)
class Box:
    """Percentiles 5, 25, 50, 75 and 95 of what `name` wrote, and the mean."""

    name: str
    percentiles: tuple[float, float, float, float, float]
    mean: float
    side: Side = "other"


@dataclass(frozen=True, slots=True)
class Panel:
    """One line over time: `values[i]` holds from `edges[i]` to `edges[i + 1]`."""

    label: str
    edges: Sequence[float]
    values: Sequence[float]


def intervals(
    shown: Sequence[Interval], *, axis: str, reference: float, prefix: str, label: str
) -> str:
    """Points with their intervals, one below the other. reference: where a line stands."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = _figure(len(shown))
        axes.axvline(reference, color=COLOURS["muted"], linestyle="--", linewidth=1)
        for place, each in enumerate(shown):
            colour = COLOURS[each.side]
            if each.low is not None and each.high is not None:
                axes.plot([each.low, each.high], [place, place], color=colour, linewidth=2)
            axes.plot(each.value, place, "o", color=colour, markersize=6)
            if each.mark is not None:
                axes.plot(each.mark, place, "D", color=colour, markersize=6, fillstyle="none")
        _name_rows(axes, [each.name for each in shown], axis)
        return _svg(figure, prefix, label)


def bars(shown: Sequence[Interval], *, axis: str, prefix: str, label: str) -> str:
    """Bars from zero with their intervals, one below the other."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = _figure(len(shown))
        for place, each in enumerate(shown):
            axes.barh(place, each.value, height=0.62, color=COLOURS[each.side], alpha=0.75)
            if each.low is not None and each.high is not None:
                axes.plot([each.low, each.high], [place, place], color=COLOURS["ink"], linewidth=1.5)
        axes.axvline(0, color=COLOURS["ink"], linewidth=1)
        _name_rows(axes, [each.name for each in shown], axis)
        return _svg(figure, prefix, label)


def scatter(points: Sequence[tuple[float, float]], *, x: str, y: str, prefix: str, label: str) -> str:
    """Points numbered from 1 in their order, and the diagonal where both are equal."""
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
    """Half of the values in the box, nine in ten between the whiskers, the mean as a diamond."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = _figure(len(shown))
        for place, each in enumerate(shown):
            ends = zip(("whislo", "q1", "med", "q3", "whishi"), each.percentiles, strict=True)
            line = {"color": COLOURS[each.side], "linewidth": 1.5}
            axes.bxp(
                [dict(ends) | {"mean": each.mean}],
                positions=[place],
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
    """Panels over one time axis. resumed: when a later session began."""
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
    figure = Figure(figsize=(WIDTH_IN, ROW_IN * rows + 0.75))
    return figure, figure.add_subplot()


def _name_rows(axes: Axes, names: Sequence[str], axis: str) -> None:
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)  # the first on top
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(True, axis="x")
    axes.set_xlabel(axis)


def _short(name: str) -> str:
    """The start and the end of a long name: variants of one mixture differ at the end."""
    if len(name) <= LABEL_CHARACTERS:
        return name
    end = LABEL_CHARACTERS * 2 // 3
    return f"{name[: LABEL_CHARACTERS - end - 1]}…{name[-end:]}"


def _svg(figure: Figure, prefix: str, label: str) -> str:
    file = io.BytesIO()
    with warnings.catch_warnings():
        # The page's fonts draw the text; that matplotlib's own lack a glyph costs a little spacing.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(file, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    for metadata in root.findall(f"{{{NAMESPACE}}}metadata"):
        root.remove(metadata)
    for element in root.iter():
        _make_unique(element, prefix)
    for size in ("width", "height"):
        del root.attrib[size]  # the page's
    root.set("role", "img")
    root.set("aria-label", label)
    ElementTree.register_namespace("", NAMESPACE)
    text = ElementTree.tostring(root, encoding="unicode")
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    return text


def _make_unique(element: ElementTree.Element, prefix: str) -> None:
    if "id" in element.attrib:
        element.set("id", f"{prefix}-{element.attrib['id']}")
    if (link := element.attrib.pop(LINK, None)) is not None:
        element.set("href", f"#{prefix}-{link.removeprefix('#')}")
    for name, value in element.attrib.items():
        element.set(name, re.sub(r"url\(#", f"url(#{prefix}-", value))
