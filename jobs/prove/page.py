"""Writes a proof as one page of HTML without scripts, as lines for a terminal, and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from jobs.atomic_file import write_atomically
from jobs.prove import harmless, judge_words, marks, words
from jobs.prove.facts import Proof, WayFacts
from jobs.report import formats
from jobs.report.page import environment

HTML = "proof.html"
"""Name of the page in the run's folder."""

MONEY = (
    "Prices in money are not known here, because a recipe has no prices. For a price in money, "
    "multiply the tokens read and the tokens written by what your provider charges for each, or the "
    "seconds by what your machine costs."
)
"""What the page says about prices in money."""


def write(proof: Proof, folder: Path) -> Path:
    """Write the page into a folder, and return its path. The file is replaced as a whole."""
    with write_atomically(folder / HTML) as file:
        file.write(html(proof).encode())
    return folder / HTML


def html(proof: Proof) -> str:
    """The proof as a page, which loads nothing from the network."""
    made = environment(autoescape=True)
    made.filters |= {"safe_text": harmless.harmless, "cut": harmless.cut, "title_of": harmless.title}
    return made.get_template("prove.html").render(
        proof=proof,
        unfinished=words.unfinished(proof),
        headline=words.headline(proof),
        others=list(words.others(proof)),
        bounds=words.bounds(proof),
        dangers=judge_words.judge_dangers(proof),
        timed=max((each.timed for each in proof.ways), default=0),
        written=formats.day(datetime.now(UTC)),
        name=partial(words.way_name, proof),
        right=_right,
        range=_range,
        interval=words.interval,
        seconds=words.seconds,
        questions=words.questions_of(proof),
        self_moa=words.self_moa_meaning(proof),
        money=MONEY,
        meaning=marks.MEANING,
        beside_mixture=marks.beside_mixture,
        beside_best=marks.beside_best,
    )


def lines(proof: Proof) -> Iterator[str]:
    """The sentences of the page, for a terminal."""
    found = words.headline(proof)
    yield from (found.sentence, *found.basis)
    yield from ("", f"The mixture {proof.recipe}:", *proof.team)
    if meaning := words.self_moa_meaning(proof):
        yield meaning
    if missing := words.unfinished(proof):
        yield missing
    if reached := words.bounds(proof):
        yield from ("", "How many right answers do the proposals hold?", *reached)
    for title, verdict in words.others(proof):
        yield from ("", title, verdict.sentence, *verdict.basis)
    if dangers := judge_words.judge_dangers(proof):
        yield from ("", "How far to trust the judge:", *dangers)
    yield from (f"Not compared: {reason}." for reason in proof.left_out)
    yield from ("", marks.MEANING, MONEY)


def table(proof: Proof) -> Table:
    """Results and prices of all ways, for a terminal."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("way")
    checked = ["right", "of 100"] if proof.checked else []
    for title in (
        *checked,
        "won, lost",
        "difference in 100",
        "beside mixture",
        *(["beside best"] if proof.checked else []),
        "seconds",
        "slowest",
        "written",
        "read",
        "calls",
    ):
        shown.add_column(title, justify="right")
    for each in proof.ways:
        found, price = each.comparison, each.price
        cells = [words.way_name(proof, each)]
        cells += [_right(each), _range(each)] if proof.checked else []
        cells += ["", ""] if found is None else [f"{found.gained}, {found.lost}", words.interval(found)]
        cells += [marks.beside_mixture(found)]
        cells += [marks.beside_best(each.beside_best)] if proof.checked else []
        if price is not None:
            slowest = "" if each.slowest is None else words.seconds(each.slowest)
            cells += [words.seconds(price), slowest, f"{price.written:.0f}", f"{price.read:.0f}"]
            cells += [f"{price.calls:.1f}"]
        shown.add_row(*cells)
    return shown


def to_json(proof: Proof) -> dict[str, Any]:
    """The figures and the sentences as a JSON value."""
    found = asdict(proof)
    for each, facts in zip(found["ways"], proof.ways, strict=True):
        if (comparison := facts.comparison) is not None:
            each["comparison"] |= {
                "difference": comparison.difference,
                "outcome": comparison.outcome,
                "smallest_shown": comparison.smallest,
            }
    return found | {
        "verdict": asdict(words.headline(proof)),
        "others": {title: asdict(verdict) for title, verdict in words.others(proof)},
    }


def _right(each: WayFacts) -> str:
    if each.right is None:
        return ""
    return f"{100 * each.right.value:.0f}%"


def _range(each: WayFacts) -> str:
    if each.right is None:
        return ""
    return f"{100 * each.right.low:.0f} to {100 * each.right.high:.0f}"
