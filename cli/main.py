"""The command `slimmoa`: which commands there are.

A command reads its arguments, calls the part of the project that does the work, and prints an error as
one message (`console.py`). Each command imports heavy libraries itself, so that the others start fast.
"""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli import ask, calibrate, export, new, presets, prove, recipes, serve, status
from cli.bench import bench
from cli.console import err, exit_on_user_error
from cli.system_errors import option_words
from cli.versions import print_version


class Commands(TyperGroup):
    """All commands. Whatever a person can mend ends any of them with one message."""

    def invoke(self, ctx: Any) -> Any:
        with exit_on_user_error():
            try:
                result = super().invoke(ctx)
            except typer.BadParameter as error:
                error.message = option_words(error.message)
                raise
            if sys.stdout is not None:
                sys.stdout.flush()  # here, a full disk or a closed pipe can still be told
            return result


app = typer.Typer(
    name="slimmoa",
    cls=Commands,
    help="A self-hosted Mixture-of-Agents server: several open models, the proposers, answer a "
    "question, and another model, the aggregator, writes one answer from theirs. It runs on one "
    "GPU, or on none. A recipe is a YAML file that names the models; start with "
    "`slimmoa presets` or `slimmoa serve`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)


@app.callback()
def options(
    _: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=print_version,
            is_eager=True,
            help="Show the versions of SlimMoA, Python, Ray and the engines, and exit.",
        ),
    ] = False,
) -> None:
    """The options of `slimmoa` itself."""


keys = typer.Typer(help="Make the API keys that a server asks for.", no_args_is_help=True)
app.add_typer(keys, name="keys")
app.add_typer(bench, name="bench")
for command in (
    serve.serve,
    ask.ask,
    ask.chat,
    status.status,
    presets.presets,
    new.new,
    recipes.check,
    recipes.models,
    recipes.plan,
    calibrate.calibrate,
    prove.prove,
    export.export,
):
    app.command()(command)


@keys.command("new")
def new_key(
    name: Annotated[str, typer.Option(help="Whose key it is; limits are counted by it.")],
) -> None:
    """Make a key. It is shown once, on the terminal; the line with its hash is printed, so that
    `slimmoa keys new --name alice >> keys.yaml` lets it in.
    """
    from serve_app.access.api_keys import generate_key, key_line

    key = generate_key()
    with exit_on_user_error():
        line = key_line(name, key)
    err.print(f"the key, for its owner; it is kept nowhere:\n{key}", highlight=False, markup=False)
    print(line)
