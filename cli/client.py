"""Talks with a running endpoint on behalf of a person at a terminal."""

import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from openai import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    DefaultHttpxClient,
    NotFoundError,
    OpenAI,
    Timeout,
)
from rich.console import Console
from rich.text import Text

from cli.answer_view import AnswerView
from cluster.waiting import tell_waiting
from configs.errors import UserError
from configs.urls import api_root, is_this_machine

CONNECT_S = 10.0
"""Longest time, in seconds, in which an endpoint has to accept a connection."""
LONGEST = 400
"""Most characters of a server's message that are shown."""
STATE_S = 10.0
"""Longest time, in seconds, in which an endpoint has to tell its state."""
OLD_SERVER = "{url} tells no state: it is another server, or an older SlimMoA; start it anew"
NO_API = "what answers at {url} is not an OpenAI-compatible API: {why}; look at --url"


class Unusable(UserError):
    """The endpoint, or what was given for it, cannot be used; the message says what to change."""


class Client:
    """Asks the endpoint at `url` through OpenAI's client.

    Args:
        url: API root of the endpoint, in any form that `configs.urls.api_root` understands.
        api_key: The endpoint's API key; any text if the endpoint wants no key.
        console: Receives what people watch: proposals, spinners, notes.
        out: Receives the text of answers and nothing else.

    Raises:
        BadUrl: `url` cannot be the root of an API.
        Unusable: the API key cannot stand in a header, or the environment's proxy cannot be used.
    """

    def __init__(self, url: str, api_key: str, console: Console, out: Console) -> None:
        self.url = api_root(url, "--url")
        key = api_key.strip() or "none"
        if not (key.isascii() and key.isprintable()):
            raise Unusable("--api-key: a key has only letters, digits and signs of ASCII, and no space")
        self._openai = OpenAI(
            base_url=self.url,
            api_key=key,
            max_retries=0,
            timeout=Timeout(None, connect=CONNECT_S),
            http_client=_http(self.url),
        )
        self._console = console
        self._out = out

    def mixture(self) -> str:
        """The mixture's name as a model: the first name in the endpoint's list of models.

        Raises:
            openai.APIError: the endpoint reports an error or does not answer.
            Unusable: what answers has no list of models.
        """
        with self._as_an_api(), self._telling("its list of models"):
            for model in self._openai.models.list():
                return str(model.id)
        raise Unusable(NO_API.format(url=self.url, why="its list of models is empty"))

    def state(self) -> dict[str, Any]:
        """What the server says of its cards, its models and its last answers (`GET /v1/state`).

        Raises:
            openai.APIError: the endpoint reports an error or does not answer.
            Unusable: what answers is another server, or an older one.
        """
        with self._as_an_api(), self._telling("its state"):
            try:
                found = self._openai.with_options(timeout=STATE_S).get("/state", cast_to=object)
            except NotFoundError as error:
                raise Unusable(OLD_SERVER.format(url=self.url)) from error
            state: dict[str, Any] = dict(cast("Any", found))
        if "rates" not in state:
            raise Unusable(OLD_SERVER.format(url=self.url))
        return state

    @contextmanager
    def _as_an_api(self) -> Iterator[None]:
        """Whatever the client cannot read is not what an OpenAI-compatible API answers."""
        try:
            yield
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            why = (
                "it sent something else than JSON"
                if isinstance(error, ValueError)
                else "no such answer"
            )
            raise Unusable(NO_API.format(url=self.url, why=why)) from error

    def whole(self, request: dict[str, Any]) -> str:
        """Ask without streaming, and return the whole response, with the proposals, as JSON.

        Raises:
            openai.APIError: the endpoint reports an error or does not answer.
        """
        completions: Any = self._openai.chat.completions  # its overloads want literal arguments
        with self._as_an_api():
            with self._telling("the answer"):
                response = completions.create(**request, extra_body={"moa": {"events": True}})
            return str(response.model_dump_json(indent=2))

    def show(self, request: dict[str, Any], *, proposals: bool) -> str:
        """Stream an answer into the terminal, and return the answer's text.

        Raises:
            openai.APIError: the endpoint does not answer, or reports an error, before the first token
                or later.
        """
        completions: Any = self._openai.chat.completions
        usage, events = {"include_usage": True}, {"moa": {"events": True}}
        with self._as_an_api(), self._telling("an answer"):
            stream = completions.create(**request, stream=True, stream_options=usage, extra_body=events)
        with self._as_an_api(), stream as chunks:
            return AnswerView(self._console, self._out, proposals=proposals).show(chunks)

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Say that the endpoint is waited for, while a block lasts."""
        say = partial(self._console.print, highlight=False, markup=False)
        with tell_waiting(f"{self.url} and {what}", say):
            yield

    def chat(self, model: str, system: list[dict[str, str]], *, proposals: bool) -> None:
        """Read questions from standard input and show the answers until the user leaves.

        An error of the endpoint, or Ctrl-C during an answer, ends only that answer, and its question is
        forgotten. Ctrl-C in place of a question leaves.

        Args:
            model: name of the model to ask.
            system: the system message, with which the conversation begins, or an empty list.
            proposals: whether to show the proposals on a terminal.
        """
        messages = system
        while (text := _read_message()) is not None:
            if text == "/reset":
                messages = system
            elif text:
                conversation = [*messages, {"role": "user", "content": text}]
                if answer := self._answer(model, conversation, proposals=proposals):
                    messages = [*conversation, {"role": "assistant", "content": answer}]

    def _answer(self, model: str, messages: list[dict[str, str]], *, proposals: bool) -> str:
        try:
            return self.show({"model": model, "messages": messages}, proposals=proposals)
        except (APIError, Unusable) as error:
            self._console.print(Text(endpoint_words(error, self.url), style="red"))
        except KeyboardInterrupt:
            self._console.print("(stopped)")
        return ""


def endpoint_words(error: Exception, url: str) -> str:
    """What to tell a person about an error of the endpoint, in one line."""
    if isinstance(error, APITimeoutError):
        return f"{url} does not answer in time"
    if isinstance(error, APIConnectionError):
        cause = error.__cause__
        name = "" if cause is None else f" ({_first_line(str(cause))})"
        return (
            f"nothing answers at {url}{name}; start a server with `slimmoa serve`, "
            "or give another --url"
        )
    if isinstance(error, APIStatusError):
        said = _first_line(error.message)
        if error.status_code == 404 and "model" not in said.casefold():
            return f"{url} has no such path ({said}); --url is the root of the API and ends in /v1"
        return said
    return _first_line(str(getattr(error, "message", error)))


def _first_line(text: str) -> str:
    """The start of a message. A server may send a whole page of HTML."""
    line = next((line for line in text.splitlines() if line.strip()), "no message")
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def _http(url: str) -> Any:
    """The HTTP client for an endpoint. To this machine it never takes a proxy.

    Raises:
        Unusable: the environment names a proxy that cannot be used.
    """
    if is_this_machine(url):
        # Certificates still come from the environment.
        verify: Any = ssl.create_default_context() if url.startswith("https") else True
        return DefaultHttpxClient(trust_env=False, verify=verify)
    try:
        return DefaultHttpxClient()
    except Exception as error:  # the client raises several classes, depending on its version
        names = "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY"
        raise Unusable(f"the environment's proxy cannot be used ({names}): {error}") from error


def _read_message() -> str | None:
    """Read a line from the user; None if the user wants to leave, or there is no standard input."""
    if sys.stdin is None:
        return None
    try:
        text = input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        return None
    except UnicodeDecodeError as error:
        raise Unusable("standard input is not UTF-8 text") from error
    return None if text == "/exit" else text
