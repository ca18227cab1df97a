"""Plots for use inside a page: unique ids, text as text, the page's colours."""

import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from jobs.report.plots import (
    NAMESPACE,
    Box,
    Interval,
    Panel,
    bars,
    boxes,
    intervals,
    over_time,
    scatter,
)

NAME = "trio-without-$x^2$ <b>& 你好"
SHOWN = [Interval(NAME, 55, 52, 58, "mixture", 54), Interval("b", 40, side="member")]
BOXES = [Box(NAME, (1, 20, 30, 40, 500), 90, "mixture"), Box("b", (1, 2, 3, 4, 5), 3)]
PANELS = [Panel("rows answered", (0, 1, 2), (3, 4)), Panel("swaps", (0, 1, 2), (0, 1))]

PLOTS: dict[str, Callable[[str], str]] = {
    "intervals": lambda p: intervals(SHOWN, axis="rate (%)", reference=50, prefix=p, label=NAME),
    "bars": lambda p: bars(SHOWN, axis="gain (points)", prefix=p, label=NAME),
    "scatter": lambda p: scatter(
        [(40, 50), (45, 48), (50, 60)], x="alone (%)", y="mixture (%)", prefix=p, label=NAME
    ),
    "boxes": lambda p: boxes(BOXES, axis="characters", prefix=p, label=NAME),
    "over_time": lambda p: over_time(PANELS, resumed=[1], axis="hours", prefix=p, label=NAME),
}


@pytest.fixture(params=PLOTS)
def plot(request: pytest.FixtureRequest) -> Callable[[str], str]:
    return PLOTS[request.param]


def test_a_plot_is_sound_markup_with_words_for_those_who_do_not_see_it(
    plot: Callable[[str], str],
) -> None:
    root = ElementTree.fromstring(plot("p"))
    assert (root.get("role"), root.get("aria-label")) == ("img", NAME)
    assert root.get("viewBox")
    assert (root.get("width"), root.get("height")) == (None, None)


def test_two_plots_of_one_page_share_no_id_and_every_reference_is_met(
    plot: Callable[[str], str],
) -> None:
    both = plot("first") + plot("second")
    ids = re.findall(r'\bid="([^"]+)"', both)
    assert len(ids) == len(set(ids))
    used = re.findall(r'href="#([^"]+)"', both) + re.findall(r"url\(#([^)]+)\)", both)
    assert used
    assert set(used) <= set(ids)


def test_the_same_data_gives_the_same_plot(plot: Callable[[str], str]) -> None:
    assert plot("p") == plot("p")


def test_colours_are_the_pages(plot: Callable[[str], str]) -> None:
    text = plot("p")
    assert "var(--ink)" in text
    assert set(re.findall(r"#[0-9a-f]{6}\b", text)) <= {"#000000"}
    # Black is matplotlib's default for paths; a style then sets their colour.
    assert not re.search(r"(?:fill|stroke): ?#", text)


def test_names_are_text_as_they_are() -> None:
    for name in ("intervals", "boxes"):
        texts = [each.text for each in ElementTree.fromstring(PLOTS[name]("p")).iter() if each.text]
        assert NAME in texts


def test_a_long_name_keeps_its_end() -> None:
    shown = [Interval("a-very-long-mixture-name-without-llama-3.1-8b", 1)]
    text = bars(shown, axis="x", prefix="p", label="y")
    assert ">a-very-l…thout-llama-3.1-8b<" in text


def test_all_points_of_a_scatter_are_within_its_axes() -> None:
    root = ElementTree.fromstring(PLOTS["scatter"]("p"))
    area = next(each for each in root.iter(f"{{{NAMESPACE}}}rect")).attrib
    left, top, width, height = (float(area[name]) for name in ("x", "y", "width", "height"))
    clipped = [each for each in root.iter(f"{{{NAMESPACE}}}g") if "clip-path" in each.attrib]
    marks = [mark.attrib for group in clipped for mark in group.iter(f"{{{NAMESPACE}}}use")]
    assert len(marks) == 3
    for mark in marks:
        assert left < float(mark["x"]) < left + width
        assert top < float(mark["y"]) < top + height
