"""Commands that talk with a running endpoint: `slimmoa ask` and `slimmoa chat`."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cli import stopping
from cli.console import err, exit_on_user_error, fail, out
from cli.options import LOCAL_URL, KeyOption, ModelOption, ProposalsOption, SystemOption, UrlOption

if TYPE_CHECKING:
    from cli.client import Client


def ask(
    question: Annotated[str, typer.Argument(help="The question, or - to read standard input.")],
    url: UrlOption = LOCAL_URL,
    api_key: KeyOption = "none",
    model: ModelOption = None,
    system: SystemOption = None,
    proposals: ProposalsOption = True,
    temperature: Annotated[float | None, typer.Option(help="Temperature of the final answer.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Most tokens that the final answer may have.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Fixes all sampling, and the order of the proposals.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole response as JSON instead.")
    ] = False,
) -> None:
    """Ask a running server one question.

    At a terminal, the proposals and the answer appear while they are written. If the output is no
    terminal, only the answer is printed.
    """
    text = _text(question)
    sampling = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    options = {name: value for name, value in sampling.items() if value is not None}
    messages = [*_system(system), {"role": "user", "content": text}]
    with exit_on_user_error():
        client = _client(url, api_key)
        request = {"model": model or client.mixture(), "messages": messages} | options
        if as_json:
            print(client.whole(request))
        else:
            client.show(request, proposals=proposals)


def chat(
    url: UrlOption = LOCAL_URL,
    api_key: KeyOption = "none",
    model: ModelOption = None,
    system: SystemOption = None,
    proposals: ProposalsOption = True,
) -> None:
    """Talk with a running server over several turns.

    Ctrl-C stops an answer, /reset forgets the conversation, /exit or Ctrl-D ends it.
    """
    with exit_on_user_error():
        client = _client(url, api_key)
        name = model or client.mixture()
        err.print(Text(f"{name} at {url}   /reset   /exit", style="dim"))
        with stopping.own_interrupts():
            client.chat(name, _system(system), proposals=proposals)


def _text(question: str) -> str:
    """The text of the question, from standard input for `-`."""
    if question == "-" and sys.stdin is None:
        fail("standard input is closed; give the question as an argument")
    text = sys.stdin.read() if question == "-" else question
    if not text.strip():
        fail('the question is empty; ask one: slimmoa ask "Why is the sky blue?"')
    try:
        text.encode()
    except UnicodeEncodeError:
        fail("the question is not UTF-8 text")
    return text


def _client(url: str, api_key: str) -> "Client":
    from cli.client import Client

    return Client(url, api_key, err, out)


def _system(text: str | None) -> list[dict[str, str]]:
    return [{"role": "system", "content": text}] if text else []
