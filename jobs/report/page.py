"""Writes a report as a page of HTML and as Markdown; texts of the run are escaped in both."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from jobs.ablation.effects import Contrast
from jobs.ablation.findings import MemberComparison
from jobs.atomic_file import write_atomically
from jobs.progress import format_duration
from jobs.report import PairwiseResults, Report, formats
from jobs.report import figures as report_figures
from jobs.report.answer import Conclusion
from jobs.report.facts import GeneratorSummary
from jobs.scores.score import Score, not_comparable

TEMPLATES = Path(__file__).parent / "templates"
HTML = "report.html"
"""Name of the page in the run's folder."""
MARKDOWN = "report.md"
"""Name of the Markdown file in the run's folder."""
MARKUP = re.compile(r"[\\`*{}\[\]<>#|~&!]|(?<![^\W_])_|_(?![^\W_])")
"""Characters that Markdown may read as markup. An underscore is markup only at the edge of a word."""


def write(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write a report's page and Markdown file into a folder.

    Each file is replaced as a whole: readers never see half of it.

    Returns:
        The paths of the page and of the Markdown file.
    """
    texts = {folder / HTML: html(report), folder / MARKDOWN: markdown(report)}
    for path, text in texts.items():
        with write_atomically(path) as file:
            file.write(text.encode())
    return folder / HTML, folder / MARKDOWN


def html(report: Report) -> str:
    """The report as one page without scripts, which loads nothing from the network."""
    colours = report_figures.sides(report.generators)
    findings = report.findings
    plots = {
        "win_rates": [
            report_figures.win_rates(judged, colours, f"scores{number}")
            for number, judged in enumerate(report.judged)
        ],
        "gains": findings and report_figures.marginal_gains(findings, "gains"),
        "aggregators": findings and report_figures.aggregators(findings, "aggregators"),
        "lengths": report_figures.lengths(report.generators, colours, "lengths"),
        "work": report.work and report_figures.work(report.work, "work"),
    }
    return (
        environment(autoescape=True)
        .get_template("report.html")
        .render(
            report=report,
            plots=plots,
            colours=colours,
            conclusions=conclusions(report),
            degraded=[(each.name, absence) for each in report.generators for absence in each.absences],
        )
    )


def markdown(report: Report) -> str:
    """The report as Markdown: the conclusions and tables, without plots and sample rows."""
    template = environment(finalize=_escape_markdown).get_template("report.md")
    return template.render(report=report, conclusions=conclusions(report))


def environment(
    *, autoescape: bool = False, finalize: Callable[[Any], Any] | None = None
) -> Environment:
    """The templates of the pages, with the filters and functions that they use."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=autoescape,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": formats.number,
        "signed_number": formats.signed_number,
        "day": formats.day,
        "interval": formats.interval,
        "duration": format_duration,
        "clip": formats.clip,
        "not_comparable": not_comparable,
    }
    functions = (unfinished_generators, period, notes, member_contrasts, without_roles)
    made.globals |= {function.__name__: function for function in functions}
    return made


def conclusions(report: Report) -> list[Conclusion]:
    """The conclusion from each judge's verdicts; an empty list before the mixture has verdicts."""
    found = [each.conclusion for each in report.judged] + [each.conclusion for each in report.graded]
    return [each for each in found if each is not None]


def unfinished_generators(report: Report) -> list[GeneratorSummary]:
    """Generators that have not answered all rows yet."""
    return [each for each in report.generators if each.rows < report.rows]


def notes(score: Score, judged: PairwiseResults) -> str:
    """Why a score is not comparable with the leaderboard.

    The reasons that all scores of the table share are left out; the text may be empty.
    """
    own = [reason for reason in score.reasons if reason not in judged.reasons]
    return "; ".join(own) if judged.reasons else not_comparable(own)


def member_contrasts(members: MemberComparison) -> list[tuple[Contrast, str]]:
    """The contrasts of the mixture with the best member, each member and Self-MoA.

    Beside each contrast stands the role of the other side; the role of a mere member is empty.
    """
    best = (members.over_best, "the best")
    others = without_roles(members.over_each)
    if members.over_self_moa:
        others.append((members.over_self_moa, "Self-MoA"))
    return [best, *others]


def without_roles(contrasts: Sequence[Contrast]) -> list[tuple[Contrast, str]]:
    """Put an empty role beside each contrast; see `member_contrasts`."""
    return [(contrast, "") for contrast in contrasts]


def period(report: Report) -> str:
    """The days of the first and the last answer, as text."""
    times = [each.at for each in report.generators if each.at is not None]
    if not times:
        return "no answers yet"
    first, last = formats.day(min(a for a, _ in times)), formats.day(max(b for _, b in times))
    return first if first == last else f"{first} to {last}"


def _escape_markdown(value: Any) -> Any:
    """A text on one line without markup; any other value as it is."""
    if not isinstance(value, str):
        return value
    return " ".join(MARKUP.sub(lambda found: f"\\{found[0]}", value).split())
