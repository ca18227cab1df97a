"""The command `slimmoa status`: what a running server is doing, once or live."""

import json
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.text import Text

from cli import stopping
from cli.console import err, exit_on_user_error, out
from cli.options import LOCAL_URL, KeyOption, UrlOption
from cli.status_view import status_text

EVERY_S = 1.0
"""Seconds between two looks in the live view."""
ENDS = (b"q", b"\x03", b"\x04")
"""The keys that end the live view: q, and Ctrl-C and Ctrl-D where the terminal passes them on."""


def status(
    url: UrlOption = LOCAL_URL,
    api_key: KeyOption = "none",
    once: Annotated[bool, typer.Option("--once", help="Show it once, at a terminal too.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the server's own report as JSON instead.")
    ] = False,
) -> None:
    """Show what a running server is doing: troubles first, then cards, queues, rates and last answers.

    At a terminal the view is live: q or Ctrl-C ends it. Where the output is no terminal, it is printed
    once.
    """
    from cli.client import Client

    with exit_on_user_error():
        client = Client(url, api_key, err, out)
        state = client.state()
        if as_json:
            print(json.dumps(state, indent=2, ensure_ascii=False))
        elif once or not out.is_terminal:
            print(status_text(state, client.url))
        else:
            with stopping.own_interrupts():
                _live(client, state)


def _live(client: Any, state: dict[str, Any]) -> None:
    """Show the state again and again, until the person ends it. A server that does not answer for a
    while is said, and asked again."""
    from openai import APIError

    from cli.client import Unusable, endpoint_words

    shown = Text(status_text(state, client.url))
    with Live(shown, console=out, screen=True, auto_refresh=False) as live, _keys() as pressed:
        try:
            while not pressed():
                try:
                    shown = Text(status_text(client.state(), client.url))
                except (APIError, Unusable) as error:
                    shown = Text(endpoint_words(error, client.url), style="red")
                live.update(shown, refresh=True)
        except KeyboardInterrupt:
            pass


@contextmanager
def _keys() -> Iterator[Any]:
    """Within this context keys come at once, without Enter. Gives a function that waits for EVERY_S, or
    until a key is pressed, and says whether the key ends the view."""
    if sys.stdin is None or not sys.stdin.isatty():
        yield _pause
        return
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def pressed() -> bool:
        ready, _, _ = select.select([terminal], [], [], EVERY_S)
        typed = os.read(terminal, 64).lower() if ready else b" "
        return not typed or any(key in typed for key in ENDS)

    tty.setcbreak(terminal)
    try:
        yield pressed
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _pause() -> bool:
    select.select([], [], [], EVERY_S)
    return False
