"""The page of a proof, as a stranger reads it: names, examples, marks, seconds and hostile texts."""

import re
from pathlib import Path

from rich.console import Console

from jobs.prove.compare import compare
from jobs.prove.examples import SHOWN
from jobs.prove.facts import Proof, WayFacts, read_proof
from jobs.prove.marks import beside_best, beside_mixture
from jobs.prove.page import html, lines, table
from jobs.prove.prices import Price, keep_price
from jobs.prove.ways import Way
from jobs.store import Store
from tests.unit.jobs.answering import recipe
from tests.unit.jobs.fake_apps import Apps
from tests.unit.jobs.prove.test_prove import ROWS, a_set, judges, merges, number, proved, right, wrong
from tests.unit.scripts import Asked, Step
from tests.unit.serve_app.mixture.comparing import is_short, tokens

HOSTILE = "<script>alert(1)</script>\u202eabc\u2066 <img src=x onerror=alert(1)> " + "x" * 9000


def text_of(page: str) -> str:
    return " ".join(re.sub("<[^>]*>", " ", page.split("</style>")[1]).split())


def hostile(asked: Asked) -> list[Step]:
    return [f"It is {number(asked)}. {HOSTILE} It is {number(asked)}."]


def sometimes_merges(asked: Asked) -> list[Step]:
    """The aggregator is right on even questions only."""
    if is_short(asked):
        return [tokens({"1": 0.9, "2": 0.1})]
    found = re.search(r"Say (\d+)", asked.text)
    assert found is not None
    return [f"So it is {found[1]}." if int(found[1]) % 2 == 0 else "Perhaps 7."]


def right_on_odd(asked: Asked) -> list[Step]:
    return right(asked) if number(asked) % 2 else wrong(asked)


def test_the_page_names_the_members_the_aggregator_and_the_file(apps: Apps, tmp_path: Path) -> None:
    apps.models.scripts |= {"a": right, "b": wrong, "z": merges}
    own = recipe([{"model": "a", "samples": 2}, "b"])
    proof = proved(tmp_path / "run", a_set(tmp_path), recipe=own, file="mine.jsonl")
    for said in (text_of(html(proof)), "\n".join(lines(proof))):
        assert "For each question, a writes 2 proposals and b writes 1 proposal." in said
        assert "the aggregator, z, reads all proposals and writes one answer from them" in said
        assert said.index(
            "Self-MoA is a mixture in which one model writes all proposals"
        ) == said.index("Self-MoA")
        assert "Prices in money are not known here, because a recipe has no prices." in said
        assert "layer" not in said
        assert "so a higher share of right answers is no victory" in said
    assert "12 questions from your file mine.jsonl" in text_of(html(proof))
    assert "of mine " not in text_of(html(proof))


def test_a_public_set_is_no_file_of_the_user(apps: Apps, tmp_path: Path) -> None:
    apps.models.scripts |= {"a": right, "b": wrong, "z": merges}
    page = text_of(html(proved(tmp_path / "run", a_set(tmp_path))))
    assert "12 questions from the set mine" in page


def test_examples_show_wins_and_losses_in_turns_with_all_proposals(apps: Apps, tmp_path: Path) -> None:
    apps.models.scripts |= {"a": right_on_odd, "b": wrong, "z": sometimes_merges}
    proof = proved(tmp_path / "run", a_set(tmp_path))
    assert [each.won for each in proof.shown] == [1, -1] * (ROWS // 2)
    assert len(proof.shown) <= SHOWN
    first = proof.shown[0]
    assert [(each.by, each.text, each.right) for each in first.proposals] == [
        ("a", "It is 7, I think.", False),
        ("b", "It is 7, I think.", False),
    ]
    assert (first.mixture.right, first.best.right) == (True, False)
    page = html(proof)
    assert page.count("<details>") == ROWS
    assert "<h3>Proposal 2, by b: wrong</h3>" in page
    assert "<h3>Answer of the mixture: right</h3>" in page


def test_hostile_texts_stay_harmless_and_are_cut(apps: Apps, tmp_path: Path) -> None:
    apps.models.scripts |= {"a": hostile, "b": wrong, "z": merges}
    page = html(proved(tmp_path / "run", a_set(tmp_path)))
    assert "<script" not in page
    assert "<img" not in page
    assert "\u202e" not in page
    assert "\u2066" not in page
    assert "[U+202E]abc[U+2066]" in page
    assert "x" * 2000 not in page
    assert "[cut here: the first 2,000 of 9," in page
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)


def facts(kind: str, gained: int, lost: int, beside: tuple[int, int] | None = None) -> WayFacts:
    def won(up: int, down: int) -> dict[int, int]:
        return dict(enumerate([1] * up + [-1] * down + [0] * (100 - up - down)))

    way = Way(kind, kind, "a" if kind == "member" else "")  # type: ignore[arg-type]
    best = None if beside is None else compare(won(*beside))
    return WayFacts(
        way,
        100,
        None,
        0,
        None if kind == "mixture" else compare(won(gained, lost)),
        Price(1, 50, 50, 1.0, 1.0),
        5,
        Price(1, 50, 50, 9.0, 9.0),
        best,
    )


def test_a_difference_that_is_not_shown_is_marked() -> None:
    unsure, better, worse = (
        facts("vote", 2, 5, (5, 2)),
        facts("pick", 0, 20, (20, 0)),
        facts("self_vote", 20, 0, (0, 20)),
    )
    assert [beside_mixture(each.comparison) for each in (unsure, better, worse)] == [
        "not shown",
        "shown better",
        "shown worse",
    ]
    assert [beside_best(each.beside_best) for each in (unsure, better, worse)] == [
        "not shown",
        "shown better",
        "shown worse",
    ]
    ways = (facts("mixture", 0, 0, (1, 1)), facts("member", 1, 1), unsure, better, worse)
    proof = Proof("mix", "mine", 100, True, ways, "a", None, None, (), 0, ())
    rows = re.findall(r"<tr><th scope=\"row\".*?</tr>", html(proof))
    assert [row.count("not shown") for row in rows] == [1, 1, 2, 0, 0, *[0] * 5]
    assert [row.count("shown better") for row in rows] == [0, 0, 0, 2, 0, *[0] * 5]
    assert '<td class="n">1.0</td><td class="n">9.0</td>' in rows[5]  # the mean and the slowest
    console = Console(record=True, width=250)
    console.print(table(proof))
    printed = console.export_text()
    assert printed.count("not shown") == 4
    assert "slowest" in printed


def test_a_way_is_compared_with_the_best_member_too(apps: Apps, tmp_path: Path) -> None:
    apps.models.scripts |= {"a": right, "b": wrong, "z": merges}
    proof = proved(tmp_path / "run", a_set(tmp_path))
    by_kind = {each.way.kind: each.beside_best for each in proof.ways}
    assert by_kind["member"] is None
    assert by_kind["self_moa"] is not None
    assert by_kind["self_moa"].outcome == "worse"
    assert by_kind["pick"] is not None
    assert by_kind["pick"].outcome == "open"


def test_seconds_are_the_mean_and_the_slowest_of_the_timed_answers(apps: Apps, tmp_path: Path) -> None:
    apps.models.scripts |= {"a": right, "b": wrong, "z": merges}
    folder = tmp_path / "run"
    name = proved(folder, a_set(tmp_path)).ways[0].way.name
    for row, took in enumerate([1.0, 2.0, 1.0, 1.0, 100.0, 500.0]):  # the last one is not timed
        keep_price(folder, name, row, Price(3, 10, 10, took, 2 * took))
    with Store.open(folder, read_only=True) as store:
        found = read_proof(store, folder).ways[0]
    assert found.price is not None
    assert found.slowest is not None
    assert (found.price.shortest_s, found.price.longest_s) == (21.0, 42.0)
    assert (found.slowest.shortest_s, found.slowest.longest_s) == (100.0, 200.0)


def test_a_judged_page_has_examples_that_are_neither_right_nor_wrong(
    apps: Apps, tmp_path: Path
) -> None:
    apps.models.scripts |= {"a": right, "b": wrong, "z": judges}
    proof = proved(tmp_path / "run", a_set(tmp_path, answers=False), judge="z")
    page = html(proof)
    assert "<h3>Proposal 1, by a</h3>" in page
    assert "against the<br>best member" not in page
    assert {each.beside_best for each in proof.ways} == {None}
