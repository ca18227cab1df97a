"""A person's talk with a running endpoint, in the terminal."""

from typing import Any

from openai import APIError, OpenAI
from rich.console import Console
from rich.text import Text

from cli.answer_view import AnswerView


class Client:
    """Asks the endpoint at `url` through OpenAI's client.

    console: for what people watch; out: for answers alone. model: by default the mixture.
    """

    def __init__(self, url: str, api_key: str, console: Console, out: Console) -> None:
        self._openai = OpenAI(base_url=url, api_key=api_key, max_retries=0, timeout=None)
        self._console = console
        self._out = out

    def mixture(self) -> str:
        """The name under which the mixture is served: the first of the list."""
        return next(iter(self._openai.models.list())).id

    def whole(self, request: dict[str, Any]) -> str:
        """The whole response as JSON."""
        completions: Any = self._openai.chat.completions  # typed per literal argument, which we lack
        response = completions.create(**request, extra_body={"moa": {"events": True}})
        return str(response.model_dump_json(indent=2))

    def show(self, request: dict[str, Any], *, proposals: bool) -> str:
        """Stream an answer into the terminal; returns its text.

        Raises:
            openai.APIError: before the first token or in the midst.
        """
        completions: Any = self._openai.chat.completions
        usage, events = {"include_usage": True}, {"moa": {"events": True}}
        with completions.create(
            **request, stream=True, stream_options=usage, extra_body=events
        ) as chunks:
            return AnswerView(self._console, self._out, proposals=proposals).show(chunks)

    def chat(self, model: str, system: list[dict[str, str]], *, proposals: bool) -> None:
        """Turn after turn until the user ends it; an error or Ctrl-C ends only its turn."""
        messages = system
        while (text := _read_turn()) is not None:
            if text == "/reset":
                messages = system
            elif text:
                turn = [*messages, {"role": "user", "content": text}]
                if answer := self._turn(model, turn, proposals=proposals):
                    messages = [*turn, {"role": "assistant", "content": answer}]

    def _turn(self, model: str, messages: list[dict[str, str]], *, proposals: bool) -> str:
        try:
            return self.show({"model": model, "messages": messages}, proposals=proposals)
        except APIError as error:
            self._console.print(Text(error.message, style="red"))
        except KeyboardInterrupt:
            self._console.print("(stopped)")
        return ""


def _read_turn() -> str | None:
    """What the user typed; None to end."""
    try:
        text = input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        return None
    return None if text == "/exit" else text
