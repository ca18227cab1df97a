"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.logs.line import SHAPES, VARIABLE, BadShape, Shape, shape_of

ConfigArgument = Annotated[str, typer.Argument(help="Recipe file, or a preset of `slimmoa presets`.")]
UrlOption = Annotated[str, typer.Option(envvar="SLIMMOA_URL", help="Root of a running server's API.")]
KeyOption = Annotated[
    str, typer.Option(envvar="SLIMMOA_API_KEY", help="API key, if the server has keys.")
]
ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="Name of the model to ask; by default the mixture.")
]
SystemOption = Annotated[str | None, typer.Option(help="System message of the conversation.")]
ProposalsOption = Annotated[
    bool, typer.Option("--proposals/--no-proposals", help="Show the proposals as they grow.")
]
KeysOption = Annotated[
    Path | None,
    typer.Option("--keys", help="File with hashes of API keys; `slimmoa keys new` prints its lines."),
]
NoKeysOption = Annotated[
    bool, typer.Option("--no-keys", help="Answer everybody who can reach the port, without API keys.")
]
HostOption = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")]
PortOption = Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")]
LogOption = Annotated[
    str | None,
    typer.Option(
        envvar=VARIABLE, metavar="[text|json]", help="Form of the log's lines.  [default: text]"
    ),
]
LOCAL_URL = "http://127.0.0.1:8000/v1"
"""The API root of `slimmoa serve` with its default host and port."""


def log_shape(option: str | None) -> Shape:
    """The shape that --log, or else SLIMMOA_LOG, names.

    Raises:
        BadShape: there is no such shape.
    """
    try:
        return shape_of(option)
    except BadShape:
        known = " or ".join(SHAPES)
        raise BadShape(f"--log ({VARIABLE}) is {option!r:.40}; it has to be {known}") from None
