"""A report as a page of HTML and as Markdown. All that comes from a run is escaped in both."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from jobs.ablation.effects import Contrast, Estimate
from jobs.ablation.findings import MemberComparison
from jobs.atomic_file import write_atomically
from jobs.report import Judged, Report
from jobs.report import figures as report_figures
from jobs.report.answer import Conclusion
from jobs.report.facts import Answered
from jobs.scores.score import Score, not_comparable

TEMPLATES = Path(__file__).parent / "templates"
HTML, MARKDOWN = "report.html", "report.md"
TEXT_CHARACTERS = 6000
# Outside of words an underscore begins emphasis.
MARKUP = re.compile(r"[\\`*{}\[\]<>#|~&!]|(?<![^\W_])_|_(?![^\W_])")


def write(report: Report, folder: Path) -> tuple[Path, Path]:
    """Both forms, in place of earlier ones; neither is ever half-written."""
    texts = {folder / HTML: html(report), folder / MARKDOWN: markdown(report)}
    for path, text in texts.items():
        with write_atomically(path) as file:
            file.write(text.encode())
    return folder / HTML, folder / MARKDOWN


def html(report: Report) -> str:
    """One page, without scripts and without anything from elsewhere."""
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
    environment = _environment(autoescape=True)
    return environment.get_template("report.html").render(
        report=report,
        plots=plots,
        colours=colours,
        conclusions=conclusions(report),
        degraded=[(each.name, who) for each in report.generators for who in each.absences],
    )


def markdown(report: Report) -> str:
    """The figures, without plots and samples."""
    template = _environment(finalize=_markdown_escaped).get_template("report.md")
    return template.render(report=report, conclusions=conclusions(report))


def _environment(
    *, autoescape: bool = False, finalize: Callable[[Any], Any] | None = None
) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=autoescape,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "fixed": fixed,
        "signed": signed,
        "day": day,
        "interval": interval,
        "duration": duration,
        "clipped": clipped,
        "not_comparable": not_comparable,
    }
    asked = (unfinished, period, notes, against_members, alike)
    environment.globals |= {function.__name__: function for function in asked}
    return environment


def fixed(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def signed(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def interval(estimate: Estimate, digits: int = 2) -> str:
    """The 95% interval of a difference."""
    if estimate.low is None or estimate.high is None:
        return "–"
    return f"{signed(estimate.low, digits)} to {signed(estimate.high, digits)}"


def day(at: float | datetime) -> str:
    moment = at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
    return moment.date().isoformat()


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def clipped(text: str) -> str:
    """A text for people to read, cut if it is very long."""
    if len(text) <= TEXT_CHARACTERS:
        return text
    return f"{text[:TEXT_CHARACTERS]} … [cut here, {len(text):,} characters in all]"


def conclusions(report: Report) -> list[Conclusion]:
    """The answer of each judge; none before there are verdicts on the mixture."""
    found = [each.conclusion for each in report.judged] + [each.conclusion for each in report.graded]
    return [each for each in found if each is not None]


def unfinished(report: Report) -> list[Answered]:
    """Generators that do not have all rows yet."""
    return [each for each in report.generators if each.rows < report.rows]


def notes(score: Score, judged: Judged) -> str:
    """Why a score is not comparable, beyond what is said of all of them."""
    own = [reason for reason in score.reasons if reason not in judged.reasons]
    return "; ".join(own) if judged.reasons else not_comparable(own)


def against_members(members: MemberComparison) -> list[tuple[Contrast, str]]:
    """The mixture minus each member and minus Self-MoA, with what the other side is."""
    best = (members.over_best, "the best")
    others = alike(members.over_each)
    if members.over_self_moa:
        others.append((members.over_self_moa, "Self-MoA"))
    return [best, *others]


def alike(contrasts: Sequence[Contrast]) -> list[tuple[Contrast, str]]:
    """Contrasts of which nothing more is said."""
    return [(contrast, "") for contrast in contrasts]


def period(report: Report) -> str:
    """The days on which the answers were written."""
    times = [each.at for each in report.generators if each.at is not None]
    if not times:
        return "no answers yet"
    first, last = day(min(a for a, _ in times)), day(max(b for _, b in times))
    return first if first == last else f"{first} to {last}"


def _markdown_escaped(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return " ".join(MARKUP.sub(lambda found: f"\\{found[0]}", value).split())
