"""Talks with a running endpoint on behalf of a person at a terminal."""

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from openai import APIError, OpenAI, Timeout
from rich.console import Console
from rich.text import Text

from cli.answer_view import AnswerView
from cluster.waiting import tell_waiting

CONNECT_S = 10.0
"""Longest time, in seconds, in which an endpoint has to accept a connection."""


class Client:
    """Asks the endpoint at `url` through OpenAI's client.

    Args:
        url: API root of the endpoint; ends in /v1.
        api_key: The endpoint's API key; any text if the endpoint wants no key.
        console: Receives what people watch: proposals, spinners, notes.
        out: Receives the text of answers and nothing else.
    """

    def __init__(self, url: str, api_key: str, console: Console, out: Console) -> None:
        patient = Timeout(None, connect=CONNECT_S)
        self._openai = OpenAI(base_url=url, api_key=api_key, max_retries=0, timeout=patient)
        self._url = url
        self._console = console
        self._out = out

    def mixture(self) -> str:
        """The mixture's name as a model: the first name in the endpoint's list of models.

        Raises:
            openai.APIError: the endpoint reports an error or does not answer.
        """
        with self._telling("its list of models"):
            return next(iter(self._openai.models.list())).id

    def whole(self, request: dict[str, Any]) -> str:
        """Ask without streaming, and return the whole response, with the proposals, as JSON.

        Raises:
            openai.APIError: the endpoint reports an error or does not answer.
        """
        completions: Any = self._openai.chat.completions  # its overloads want literal arguments
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
        with self._telling("an answer"):
            stream = completions.create(**request, stream=True, stream_options=usage, extra_body=events)
        with stream as chunks:
            return AnswerView(self._console, self._out, proposals=proposals).show(chunks)

    def _telling(self, what: str) -> AbstractContextManager[None]:
        """Say that the endpoint is waited for, while a block lasts."""
        say = partial(self._console.print, highlight=False, markup=False)
        return tell_waiting(f"{self._url} and {what}", say)

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
        except APIError as error:
            self._console.print(Text(error.message, style="red"))
        except KeyboardInterrupt:
            self._console.print("(stopped)")
        return ""


def _read_message() -> str | None:
    """Read a line from the user; None if the user wants to leave."""
    try:
        text = input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        return None
    return None if text == "/exit" else text
