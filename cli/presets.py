"""The command `slimmoa presets`: which of the package's recipes suit this machine, or a named card."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from cli.console import busy, exit_on_user_error, out, show

if TYPE_CHECKING:
    from cli.preset_rows import PresetRow


def presets(
    card: Annotated[
        list[str] | None,
        typer.Option(help="Look at this card, such as L4, instead of this machine's; repeatable."),
    ] = None,
    ram: Annotated[
        float | None,
        typer.Option(
            min=0.5,
            max=100_000,
            help="Look at a machine with this many GB of RAM; without --card, it has no GPU.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the recipes of SlimMoA, the best for this machine first.

    The seconds of an answer are predicted by arithmetic, not measured. `slimmoa serve --auto` takes
    the first recipe that answers within three minutes and whose weights are here or can be fetched.
    """
    from cli.preset_rows import choices, named_cards, preset_rows, rows_here, stronger

    with busy("the Hub and the cards of this machine"), exit_on_user_error():
        named = named_cards(card or [], ram)
        rows = preset_rows(named, engines=False) if named else rows_here(with_remarks=True)
    if as_json:
        print(json.dumps([row.as_json() for row in rows], indent=2))
        return
    table = Table("preset", "on this machine" if not named else "there", "weights", box=None)
    for row in rows:
        table.add_row(row.name, row.words, row.weights)
    show(table)
    if may := choices(rows):
        takes = "takes" if not named else "would take"
        words = f"`slimmoa serve --auto` {takes} {_choice(may)}{stronger(rows, may[0])}"
        out.print(words, highlight=False)


def _choice(choices: "Sequence[PresetRow]") -> str:
    """The preset that `--auto` takes, and the one in its place where the Hub does not answer."""
    best = choices[0]
    if best.here or best.use.kind == "fallback":
        return best.name
    other = next((row for row in choices if row.here or row.use.kind == "fallback"), None)
    if other is None:
        return best.name
    return f"{best.name} if the Hub answers, else {other.name}"
