"""A report as a page and as Markdown: complete, without network, with all texts of a run escaped."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from jobs.report import Report, read_report
from jobs.report.page import HTML, MARKDOWN, html, markdown, write
from jobs.store import Store
from tests.unit.jobs.report.report_run import HOSTILE, begin, make_run

ROWS = 43
"""Rows of the run; with this number the sample rows contain each of the hostile texts."""
VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """The elements, attributes and texts of a page, as a browser would read them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.headings: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)

    def values(self, name: str) -> list[str]:
        """The values of an attribute in all elements."""
        return [value for key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of a run that has everything, with many hostile texts."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "trio", ROWS, gain=2.0)
    with Store.open(folder, read_only=True) as store:
        return read_report(store, folder)


@pytest.fixture(scope="module")
def page(full: Report) -> Page:
    return Page(html(full))


@pytest.fixture
def empty(tmp_path: Path) -> Report:
    """The report of a run that has its rows and nothing else."""
    with Store.open(tmp_path) as store:
        begin(store, ROWS)
        return read_report(store, tmp_path)


def test_every_element_is_closed(page: Page) -> None:
    assert page.open == []


def test_the_answer_comes_first(full: Report, page: Page) -> None:
    assert page.text.index("Run trio") < page.text.index("trio beats its best member, ")
    assert page.text.index("trio beats its best member, ") < page.text.index(page.headings[1])
    assert "not comparable with the leaderboard (judge: " in page.text
    assert markdown(full).splitlines()[2].startswith("**Yes: trio beats its best member, ")


def test_a_run_with_everything_has_every_section(page: Page) -> None:
    assert page.headings == [
        "Run trio",
        "The mixture’s models",
        "Scores against gpt4_1106_preview",
        "Ablation of trio",
        "Answers",
        "Failures",
        "Degraded answers",
        "Sample rows",
    ]
    for part in ("Against its members", "What each proposer adds", "Who should aggregate"):
        assert part in page.text
    assert page.tags.count("svg") == 5


def test_nothing_is_loaded_from_elsewhere(full: Report, page: Page) -> None:
    assert not {"script", "img", "iframe", "object", "base", "form"} & set(page.tags)
    assert page.tags.count("link") == 1
    links = page.values("href") + page.values("src") + page.values("xlink:href")
    assert {link for link in links if not link.startswith("#")} == {"data:,"}
    text = html(full)
    assert set(re.findall(r"url\((.)", text)) == {"#"}
    assert "@import" not in text
    assert [value for value in page.values("content") if value.startswith("default-src 'none'")]


def test_ids_are_unique_over_all_plots(page: Page) -> None:
    ids = page.values("id")
    assert ids
    assert len(ids) == len(set(ids))
    targets = {link[1:] for link in page.values("href") if link.startswith("#")}
    assert targets <= set(ids)


def test_what_a_run_holds_is_text_and_nothing_else(page: Page) -> None:
    assert "b" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    for text in HOSTILE[:3]:
        assert text in page.text


def test_each_plot_and_table_says_what_it_is(page: Page) -> None:
    assert page.tags.count("figcaption") == page.tags.count("svg")
    labels = page.values("aria-label")
    assert len(labels) == page.tags.count("svg") + page.tags.count("table")
    assert all(labels)


def test_tables_scroll_in_boxes_that_keys_can_reach(page: Page) -> None:
    assert page.values("class").count("table") == page.tags.count("table")
    assert page.values("tabindex") == ["0"] * page.tags.count("table")


def test_without_anything_the_page_says_how_far_the_run_is(empty: Report) -> None:
    page = Page(html(empty))
    assert "No verdicts yet on trio." in page.text
    assert f"trio: 0 of {ROWS} rows" in page.text
    assert "no answers yet" in page.text
    assert "svg" not in page.tags
    assert page.headings == [f"Run {empty.run}", "The mixture’s models", "Answers"]
    assert "**No verdicts yet on trio.**" in markdown(empty)
    assert f"unfinished: trio has 0 of {ROWS} rows" in markdown(empty)


def test_a_store_without_a_set_has_a_page(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        found = read_report(store, tmp_path)
    assert "No verdicts yet." in Page(html(found)).text
    assert "no set yet, 0 rows" in markdown(found)


def test_markdown_tables_have_one_width_and_nothing_acts_in_them(full: Report) -> None:
    text = markdown(full)
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(tables) == 7
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1
    assert "<img" not in text.replace("\\<", "")
    assert "\\<img src=x onerror" in text


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("a_b-c.1", "a_b-c.1"),
        ("_a_ __b", "\\_a\\_ \\_\\_b"),
        ("a|b\n# c", "a\\|b \\# c"),
        ("[x](y) <i>", "\\[x\\](y) \\<i\\>"),
    ],
)
def test_names_stay_names_in_markdown(empty: Report, name: str, escaped: str) -> None:
    assert markdown(replace(empty, run=name)).splitlines()[0] == f"# Run {escaped}"


def test_a_very_long_text_is_cut_and_says_so(full: Report) -> None:
    (turn,) = full.sample_rows[0].turns
    sample = replace(full.sample_rows[0], turns=(replace(turn, answer="x" * 9_000),))
    text = html(replace(full, sample_rows=(sample,)))
    assert "x" * 6_000 + " … [cut here, 9,000 characters in all]" in text
    assert "x" * 6_001 not in text


def test_both_files_replace_earlier_ones(
    empty: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    assert write(empty, folder) == (folder / HTML, folder / MARKDOWN)
    before = (folder / HTML).read_text("utf-8")
    assert before.startswith("<!doctype html>")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write(replace(empty, run="other"), folder)
    assert (folder / HTML).read_text("utf-8") == before
    assert sorted(each.name for each in folder.iterdir()) == [HTML, MARKDOWN]
