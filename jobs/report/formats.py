"""How a report writes numbers, times and long texts."""

from datetime import UTC, datetime

from jobs.ablation.effects import Estimate

TEXT_CHARACTERS = 6000
"""Most characters of one text, so that a page with long answers still opens fast."""


def number(value: float | None, digits: int = 2) -> str:
    """A number with commas between thousands and this many decimals; a dash for None."""
    return "–" if value is None else f"{value:,.{digits}f}"


def signed_number(value: float | None, digits: int = 2) -> str:
    """A number with its sign and this many decimals; a dash for None."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def interval(estimate: Estimate, digits: int = 2) -> str:
    """The 95% interval of a difference."""
    if estimate.low is None or estimate.high is None:
        return "–"
    return f"{signed_number(estimate.low, digits)} to {signed_number(estimate.high, digits)}"


def day(at: float | datetime) -> str:
    """The day of a Unix time or a moment, YYYY-MM-DD, in UTC."""
    moment = at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
    return moment.date().isoformat()


def duration(seconds: float) -> str:
    """A time in hours and minutes, or in minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def clip(text: str) -> str:
    """The start of a text that is longer than TEXT_CHARACTERS; a shorter text as it is."""
    if len(text) <= TEXT_CHARACTERS:
        return text
    return f"{text[:TEXT_CHARACTERS]} … [cut here, {len(text):,} characters in all]"
