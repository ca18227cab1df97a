"""The command `slimmoa export`: writes a recipe as a config file of Ray Serve."""

from pathlib import Path
from typing import Annotated

import typer
import yaml

from cli.console import exit_on_user_error, load_or_fail, with_access, write_file
from cli.options import (
    ConfigArgument,
    HostOption,
    KeysOption,
    LogOption,
    NoKeysOption,
    PortOption,
    log_shape,
)


def export(
    config: ConfigArgument = "tiny_cpu",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; by default the terminal.")
    ] = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    ingresses: Annotated[
        int, typer.Option(min=1, help="HTTP entries; several are on different nodes, which all listen.")
    ] = 1,
    log: LogOption = None,
    keys_file: KeysOption = None,
    no_keys: NoKeysOption = False,
) -> None:
    """Write a recipe as a config file of Ray Serve.

    The file is for `serve run FILE` and `serve deploy FILE`.

    It holds no keys: the file of keys, or SLIMMOA_API_KEYS, has to be where it is deployed.
    """
    from serve_app.serve_config import serve_config

    recipe = with_access(load_or_fail(config), host, keys_file, no_keys=no_keys)
    with exit_on_user_error():
        shape = None if log is None else log_shape(log)
    document = serve_config(recipe, host, port, ingresses=ingresses, log=shape)
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    if output is None:
        print(text, end="")
    else:
        with exit_on_user_error():
            write_file(output, text)
