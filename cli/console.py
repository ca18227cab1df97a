"""What every command says, and how it fails: in plain words, with exit code 1."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from configs.load import RecipeError, load
from configs.schema import Recipe

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)
TABLE_COLUMNS = 130


def show(table: Any) -> None:
    """Print a table. A narrow terminal wraps its lines; cutting the figures would be worse."""
    wide = out if out.width >= TABLE_COLUMNS else Console(width=TABLE_COLUMNS)
    wide.print(table, highlight=False)


@contextmanager
def exit_on_user_error(*errors: type[Exception]) -> Iterator[None]:
    """Errors that a user can do something about become one message and exit code 1.

    errors: those of the command, beside what all commands share.
    """
    import openai

    from cluster.cards.catalog import UnknownCard
    from cluster.plan.checkpoint import UnknownCheckpoint
    from cluster.plan.planner import DoesNotFit
    from configs.errors import RequestError

    try:
        yield
    except openai.APIConnectionError as error:
        url = error.request.url
        fail(f"nothing answers at {url.host}:{url.port}; start it with `slimmoa serve`, or give --url")
    except (openai.APIError, RequestError) as error:
        fail(error.message)
    except (DoesNotFit, UnknownCard, UnknownCheckpoint, OSError) as error:
        fail(str(error))  # an OSError is of a port, a file or a cluster
    except errors as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def load_or_fail(config: str) -> Recipe:
    """A recipe by file or name; its mistakes end the command."""
    try:
        return load(config)
    except RecipeError as error:
        fail(str(error))


def with_access(recipe: Recipe, host: str, keys: Path | None, *, no_keys: bool) -> Recipe:
    """The recipe with the door that a command line asks for. An interface that others can reach is
    refused without keys, unless that is said; so are keys that cannot be used."""
    from configs.access import is_loopback
    from serve_app.access.api_keys import VARIABLE, KeyFile, KeysError, read_environment_keys

    said = {"keys_file": str(keys.resolve())} if keys else {"open": True} if no_keys else {}
    access = recipe.access.model_copy(update=said)
    try:
        has_keys = bool(read_environment_keys()) or access.keys_file is not None
        if access.keys_file is not None:
            KeyFile(Path(access.keys_file), access.reload_s)
    except KeysError as error:
        fail(str(error))
    if no_keys and has_keys:
        fail(f"--no-keys, and there are keys: by --keys, access.keys_file or {VARIABLE}; choose one")
    if not (has_keys or access.open or is_loopback(host)):
        fail(
            f"{host} can be reached by others, and there are no API keys: give a file with --keys "
            f"(`slimmoa keys new` makes its lines) or {VARIABLE}, or say --no-keys to serve everybody"
        )
    return recipe.model_copy(update={"access": access})


def fail(message: str) -> NoReturn:
    """End the command with a message."""
    err.print(Text(f"error: {message}", style="red"), soft_wrap=True)
    raise typer.Exit(1)
