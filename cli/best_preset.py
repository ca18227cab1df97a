"""Which preset `slimmoa serve --auto` takes, and which one `slimmoa serve` offers after the default."""

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from cli.console import err
from configs.errors import UserError, WeightsError
from configs.preset_uses import use_of

if TYPE_CHECKING:
    from cli.preset_rows import PresetRow


class Choice(NamedTuple):
    """The preset that `--auto` takes."""

    name: str
    why: str
    """One line for people."""


def choose_preset() -> Choice:
    """The best preset for this machine that answers soon enough (`PATIENCE_S`), and whose weights are
    here or can be fetched. If none answers soon enough, it is the quickest one.

    Without a Hub, that is one whose weights are here or come from a package registry.

    Raises:
        UserError: no preset can be served here.
    """
    from cli.preset_rows import choices, rows_here, stronger

    rows = rows_here()
    passed: list[tuple[str, str]] = []
    for row in choices(rows):
        cause = _why_not(row)
        if cause is None:
            why = f"{_about(row)}{_passed_over(passed)}{stronger(rows, row)}"
            return Choice(row.name, f"--auto takes {row.name}: {why}")
        passed.append((row.name, cause))
    raise UserError(
        f"no preset can be served on this machine{_passed_over(passed)}; `slimmoa presets` lists them"
    )


def offer_better(served: str) -> None:
    """Look in the background for a better preset than the small one that is served, and say so.

    Says nothing if another recipe is served, or if no better one can be had within seconds.
    """
    if use_of(served).kind == "fallback":
        threading.Thread(target=_offer, args=[served], daemon=True).start()


def _offer(served: str) -> None:
    from cli.preset_rows import choices, rows_here, stronger

    with suppress(Exception):  # an offer is no reason to disturb who serves
        rows = rows_here()
        better = {row.name for row in rows[: [row.name for row in rows].index(served)]}
        for row in choices(rows):
            if row.name in better and _why_not(row) is None:
                hub = "" if row.here or row.use.kind == "fallback" else "the Hub answers: "
                offer = f"{hub}`slimmoa serve {row.name}` would give better answers ({_about(row)})"
                err.print(Text(f"  {offer}{stronger(rows, row)}"))
                return


def _why_not(row: "PresetRow") -> str | None:
    """Why the weights cannot be had, or None if they can."""
    from actors.weights.obtainable import require_obtainable

    if row.here:
        return None
    try:
        require_obtainable(row.recipe)
    except WeightsError as error:
        return error.message
    return None


def _about(row: "PresetRow") -> str:
    return f"{row.words}; weights: {row.weights}"


def _passed_over(passed: list[tuple[str, str]]) -> str:
    """What would have been better, and why it was not taken."""
    if not passed:
        return ""
    others = f" and {len(passed) - 1} more" if len(passed) > 1 else ""
    name, cause = passed[0]
    return f" (not {name}{others}: {cause})"
