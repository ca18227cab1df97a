"""How a report writes numbers, times and long texts."""

from datetime import UTC, datetime

from jobs.ablation.effects import Estimate

TEXT_CHARACTERS = 6000
"""A text is cut after so many characters, so that a page with long answers still opens fast."""


def number(value: float | None, digits: int = 2) -> str:
    """A number with commas between thousands and this many decimals; a dash for None."""
    return "–" if value is None else f"{value:,.{digits}f}"


def signed_number(value: float | None, digits: int = 2) -> str:
    """A number with its sign and this many decimals; a dash for None."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def interval(estimate: Estimate, digits: int = 2) -> str:
    """The interval of a difference as two signed numbers; a dash if there is no interval."""
    if estimate.low is None or estimate.high is None:
        return "–"
    return f"{signed_number(estimate.low, digits)} to {signed_number(estimate.high, digits)}"


def day(at: float | datetime) -> str:
    """The day of a Unix time or a moment, YYYY-MM-DD, in UTC."""
    moment = at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
    return moment.date().isoformat()


def clip(text: str) -> str:
    """The text; if it is longer than TEXT_CHARACTERS, its start with a note about the whole length."""
    if len(text) <= TEXT_CHARACTERS:
        return text
    return f"{text[:TEXT_CHARACTERS]} … [cut here, {len(text):,} characters in all]"
