"""Where commands print, and how they fail: one message in plain words, and exit code 1."""

import errno
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from cli.system_errors import (
    discard_output,
    os_error_words,
    printable,
    refused_values,
    unicode_words,
)
from cluster.waiting import tell_waiting
from configs.errors import RequestError, UserError
from configs.load import read
from configs.schema import Recipe

out = Console(soft_wrap=True)
"""Standard output: what a command was asked for."""
err = Console(stderr=True, soft_wrap=True)
"""Standard error: progress, hints and errors."""
TABLE_COLUMNS = 130
"""Fewest columns for which a table is laid out. A narrower terminal wraps the lines."""


def show(table: Any) -> None:
    """Print a table. A narrow terminal wraps its lines, because to cut the figures would be worse."""
    wide = out if out.width >= TABLE_COLUMNS else Console(width=TABLE_COLUMNS)
    wide.print(table, highlight=False)


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn an error that a user can mend into one message and exit code 1.

    Such errors are `UserError`, `RequestError`, values that pydantic refuses, errors of an endpoint,
    text that is not UTF-8, and errors of the operating system about a port, a file or a cluster.
    Everything else is a defect and keeps its traceback. If nobody reads the output any more (`| head`),
    the command ends in silence, as if by SIGPIPE.
    """
    try:
        yield
    except BrokenPipeError:
        discard_output()
        raise typer.Exit(128 + signal.SIGPIPE) from None
    except Exception as error:
        if (message := _message(error)) is None:
            raise
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            discard_output()
        fail(message)


def _message(error: Exception) -> str | None:
    """What to tell the user about an error; None for a defect of this program."""
    from pydantic import ValidationError

    match error:
        case RequestError():
            return error.message
        case UserError():
            return str(error)
        case ValidationError():
            return refused_values(error)
        case OSError():
            return os_error_words(error)
        case UnicodeError():
            return unicode_words(error)
        case MemoryError():
            return "this takes more memory than this machine has"
    return _endpoint_message(error)


def _endpoint_message(error: Exception) -> str | None:
    """What to tell the user about an error of OpenAI's client; None for every other error."""
    # If nothing has loaded OpenAI's client, the error is of something else. To load it takes a second.
    if "openai" not in sys.modules:
        return None
    import openai

    from cli.client import endpoint_words

    if not isinstance(error, openai.APIError):
        return None
    url = error.request.url
    return endpoint_words(error, f"{url.scheme}://{url.netloc.decode()}{_root(url.path)}")


def _root(path: str) -> str:
    return path.removesuffix("/models").removesuffix("/chat/completions").removesuffix("/state")


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Say that the command waits, while the block lasts: with a spinner at a terminal, and elsewhere
    with lines once the wait gets long.

    Args:
        what: what the command waits for, as it stands after "waiting for".
    """
    if not err.is_terminal:
        with tell_waiting(what, lambda line: err.print(line, highlight=False, markup=False)):
            yield
        return
    with (
        err.status(Text(f"waiting for {what}")) as status,
        tell_waiting(what, lambda line: status.update(Text(line))),
    ):
        yield


def show_remarks(remarks: Iterable[str]) -> None:
    """Print what a person should know of the cards that were found, a line each."""
    for remark in dict.fromkeys(remarks):
        err.print(remark, markup=False, highlight=False, soft_wrap=True)


def load_or_fail(config: str) -> Recipe:
    """Load a recipe from its file or by a preset's name, and print its cautions. A missing recipe or
    its mistakes end the command."""
    with exit_on_user_error():
        loaded = read(config)
    warn(loaded.cautions)
    return loaded.recipe


def with_access(recipe: Recipe, host: str, keys: Path | None, *, no_keys: bool) -> Recipe:
    """Put a command line's options about API keys into the recipe.

    These mistakes end the command here, before anything is started:

    1. Keys that cannot be used.
    2. `--no-keys` although there are keys.
    3. An interface that other machines can reach, without API keys, unless `--no-keys` was given or the
       recipe says `access.open`.

    Args:
        recipe: The recipe as it was loaded.
        host: The interface to listen on.
        keys: File of API keys (`--keys`); None for the recipe's file, if it names one.
        no_keys: Whether to answer everybody (`--no-keys`).
    """
    from configs.access import is_loopback
    from serve_app.access.api_keys import VARIABLE, KeyFile, read_environment_keys

    options = {"keys_file": os.path.realpath(keys)} if keys else {"open": True} if no_keys else {}
    access = recipe.access.model_copy(update=options)
    with exit_on_user_error():
        has_keys = bool(read_environment_keys()) or access.keys_file is not None
        if access.keys_file is not None:
            KeyFile(Path(access.keys_file), access.reload_s)
    if no_keys and has_keys:
        fail(
            "--no-keys serves everybody, but there are API keys too, from --keys, access.keys_file or "
            f"{VARIABLE}; leave out one of the two"
        )
    if not (has_keys or access.open or is_loopback(host)):
        fail(
            f"{host} can be reached by others, and there are no API keys: give a file with --keys "
            f"(`slimmoa keys new` makes its lines) or {VARIABLE}, or say --no-keys to serve everybody"
        )
    return recipe.model_copy(update={"access": access})


def write_file(path: Path, text: str) -> None:
    """Write a text into a file that a person has named.

    Raises:
        OSError: it cannot be written; the error names the file.
    """
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def warn(lines: Iterable[str]) -> None:
    """Print a warning for each line."""
    for line in lines:
        err.print(Text(f"warning: {line}", style="yellow"), soft_wrap=True)


def fail(message: str) -> NoReturn:
    """Print a message in red and end the command with exit code 1."""
    with suppress(OSError):  # there may be nobody to read it
        err.print(Text(f"error: {printable(message)}", style="red"), soft_wrap=True)
    raise typer.Exit(1)
