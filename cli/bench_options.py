"""Options that several commands of `slimmoa bench` share, and the first steps of these commands."""

import shlex
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import busy, exit_on_user_error, fail

if TYPE_CHECKING:
    from jobs.sets import LoadedSet


def no_device(path: Path | None) -> Path | None:
    """Refuse a device, such as /dev/zero, whose content never ends. A pipe is fine."""
    with suppress(OSError):
        if path is not None and stat.S_ISCHR(path.stat().st_mode):
            raise typer.BadParameter(f"{path} is a device, and a file is needed")
    return path


MOST_ROWS = 1_000_000_000
"""Most rows that may be asked for."""
MOST_IN_FLIGHT = 1_000_000
"""Most answers that may be in flight."""
RunArgument = Annotated[Path, typer.Argument(help="Folder of the run.")]
JudgeOption = Annotated[
    str, typer.Option(help="A model of the run's recipe, or with --judge-url one of that server.")
]
BaselineOption = Annotated[
    str, typer.Option(help="Generator of the other answers: a model, a mixture or an imported file.")
]
JudgeUrlOption = Annotated[
    str | None, typer.Option(help="API root of the OpenAI-compatible server that runs the judge.")
]
JudgeKeyOption = Annotated[
    str | None, typer.Option(help="Environment variable with the API key of the judge's server.")
]
PromptOption = Annotated[
    Path | None,
    typer.Option(help="The judge's prompt from a file, instead of ours.", callback=no_device),
]
DifficultyOption = Annotated[
    Path | None,
    typer.Option(
        help="instruction_difficulty.csv, for length-controlled win rates.", callback=no_device
    ),
]
GamedOption = Annotated[
    Path | None,
    typer.Option(help="df_gamed.csv, which length control is regularised with.", callback=no_device),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
InFlightOption = Annotated[
    int,
    typer.Option(min=1, max=MOST_IN_FLIGHT, help="Most answers that are worked on at a time."),
]
ColumnOption = Annotated[
    str | None,
    typer.Option(help="Column of the file that has the questions, if its name is unusual."),
]
SeedOption = Annotated[int, typer.Option(min=-(2**63), max=2**63 - 1, help="Seed of all sampling.")]
NO_ANSWERS = "gives no right answers (a field `reference`, `answer`, `expected`, `target` or `label`)"
"""What is said of a set without right answers, behind the set's name."""
AddressOption = Annotated[
    str | None,
    typer.Option(help="Run as a job of this Ray cluster: http://HOST:8265, or `auto`."),
]
VerboseOption = Annotated[bool, typer.Option(help="Show the logs of all processes.")]


def command_line() -> str:
    """The command line, quoted for a shell, with the program's name in place of its path."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def submit_if_address(address: str | None) -> None:
    """With an address, run this command as a Ray job and exit with the job's exit code.

    Call this before anything imports Ray, because Ray reads its settings when it is imported.

    Args:
        address: The cluster (`--address`). With None this function does nothing.

    Raises:
        typer.Exit: The job ended, or no cluster takes it.
    """
    if address is None:
        return
    from cli.ray_job import submit

    with exit_on_user_error():
        raise typer.Exit(submit(address, sys.argv[1:]))


def must_be_run(folder: Path) -> None:
    """End the command if the folder holds no run, so that a misspelt name does not make a new run."""
    from jobs.store import FILE, no_run

    if not (folder / FILE).is_file():
        fail(no_run(folder))


def load_questions(name: str, limit: int | None, column: str | None) -> "LoadedSet":
    """The questions of a file, of a public set, or of a set that can be checked without a judge.

    Raises:
        SetError: see `load_set`.
    """
    from jobs.sets import load_set
    from jobs.sets.checkable import as_file, known_name

    with busy(f"the set {name}"):
        known = known_name(name)
        return load_set(name if known is None else as_file(known), limit, column)
