"""What people see of an answer in their terminal."""

import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from openai import APIError
from openai.types.chat import ChatCompletionChunk
from rich.console import Console

from cli.answer_view import AnswerView
from cli.client import Client

HEAD = {"id": "x", "created": 0, "model": "mix", "object": "chat.completion.chunk"}
SUMMARY = {
    "type": "summary",
    "degraded": True,
    "missing": [{"layer": 1, "model": "slow", "cause": "late", "detail": "was not done"}],
    "answered_by": "writer",
    "fallback": None,
    "cut": False,
    "stages": [{"stage": "layer 1", "seconds": 1.5}, {"stage": "aggregator", "seconds": 2.0}],
}


def moa(**fields: Any) -> ChatCompletionChunk:
    return ChatCompletionChunk.model_validate({**HEAD, "choices": [], "moa": fields})


def text(content: str, **fields: Any) -> ChatCompletionChunk:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    return ChatCompletionChunk.model_validate({**HEAD, "choices": [choice], **fields})


ANSWER = [
    text(""),
    moa(type="proposal.delta", layer=1, place=0, model="quick", text="sky [bold]is[/bold]"),
    moa(
        type="proposal.done", layer=1, place=0, model="quick", text="sky [bold]is[/bold] blue",
        seconds=1.2, completion_tokens=7,
    ),
    moa(
        type="proposal.dropped", layer=1, place=1, model="slow", cause="late", detail="was not done"
    ),
    moa(type="stage.done", stage="layer 1", seconds=1.5, first_s=None),
    text("Light "),
    text("scatters."),
    text("", moa=SUMMARY),
]  # fmt: skip


def shown(
    *, terminal: bool, proposals: bool, chunks: Sequence[ChatCompletionChunk] = ANSWER
) -> tuple[str, str, str]:
    """(what the view returned, its console, its output)"""
    screen, answer = io.StringIO(), io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=80)
    out = Console(file=answer, force_terminal=False)
    returned = AnswerView(console, out, proposals=proposals).show(chunks)
    return returned, screen.getvalue(), answer.getvalue()


def test_a_terminal_shows_each_proposal_what_is_missing_and_the_answer() -> None:
    returned, screen, answer = shown(terminal=True, proposals=True)
    assert returned == "Light scatters."
    assert answer == "Light scatters.\n"
    assert "layer 1: quick" in screen
    assert "sky [bold]is[/bold] blue" in screen  # a model's text is no markup
    assert "7 tokens, 1.2 s" in screen
    assert "late: was not done" in screen
    assert "degraded: slow is missing (late)" in screen
    assert "answered by writer in 3.5 s" in screen


def test_a_terminal_says_which_model_thinks_until_its_first_text() -> None:
    thinks = moa(type="proposal.thinks", layer=1, place=0, model="quick")
    blank = moa(type="proposal.delta", layer=1, place=0, model="quick", text=" \n")
    grows = moa(type="proposal.delta", layer=1, place=0, model="quick", text="sky")
    for chunks, said in (
        ([thinks], "thinks"),
        ([thinks, blank], "thinks"),
        ([thinks, blank, grows], "sky"),
    ):
        _, screen, _ = shown(terminal=True, proposals=True, chunks=chunks)
        assert re.search(r"quick\S*\n\S*  (\w+)", screen)[1] == said  # type: ignore[index]
    _, screen, _ = shown(terminal=False, proposals=True, chunks=[thinks, grows])
    assert screen == ""


def test_proposals_can_be_left_out() -> None:
    _, screen, _ = shown(terminal=True, proposals=False)
    assert "layer 1: quick" not in screen
    assert "degraded: slow is missing (late)" in screen


def test_what_an_answer_was_not_held_to_is_said() -> None:
    screen = io.StringIO()
    view = AnswerView(Console(file=screen, width=120), Console(file=io.StringIO()), proposals=False)
    summary = SUMMARY | {"fallback": "reference", "missing": [], "unheld": ["response_format"]}
    view.show([text("prose"), text("", moa=summary)])
    assert screen.getvalue() == (
        "degraded: writer stood in for the aggregator; the answer may not keep response_format\n"
    )


def test_a_pipe_gets_the_answer_alone_and_the_note_that_it_is_degraded() -> None:
    _, screen, answer = shown(terminal=False, proposals=True)
    assert answer == "Light scatters.\n"
    assert screen == "degraded: slow is missing (late)\n"


def test_an_error_in_the_midst_leaves_a_whole_line_behind() -> None:
    def broken() -> Iterator[ChatCompletionChunk]:
        yield text("Light ")
        raise APIError("gone", request=None, body=None)  # type: ignore[arg-type]

    answer = io.StringIO()
    view = AnswerView(Console(file=io.StringIO()), Console(file=answer), proposals=True)
    with pytest.raises(APIError):
        view.show(broken())
    assert answer.getvalue() == "Light \n"


class Turns(Client):
    """A chat that remembers what it would have asked, and answers from a script."""

    def __init__(self, answers: list[str | BaseException]) -> None:
        self.screen = io.StringIO()
        super().__init__("http://nowhere/v1", "none", Console(file=self.screen), Console())
        self.asked: list[list[str]] = []
        self._answers = answers

    def show(self, request: dict[str, Any], *, proposals: bool) -> str:  # noqa: ARG002
        self.asked.append([message["content"] for message in request["messages"]])
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def chatted(
    monkeypatch: pytest.MonkeyPatch, typed: list[str], answers: list[str | BaseException]
) -> Turns:
    def read(_prompt: str) -> str:
        if not typed:
            raise EOFError
        return typed.pop(0)

    monkeypatch.setattr("builtins.input", read)
    client = Turns(answers)
    client.chat("mix", [{"role": "system", "content": "Be brief."}], proposals=False)
    return client


def test_a_chat_remembers_its_turns_until_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["one", "", "two", "/reset", "three"]
    client = chatted(monkeypatch, typed, ["first", "second", "third"])
    assert client.asked == [
        ["Be brief.", "one"],
        ["Be brief.", "one", "first", "two"],
        ["Be brief.", "three"],
    ]


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (APIError("too long", request=None, body=None), "too long"),  # type: ignore[arg-type]
        (KeyboardInterrupt(), "(stopped)"),
    ],
)
def test_a_turn_that_fails_is_forgotten_and_the_chat_goes_on(
    monkeypatch: pytest.MonkeyPatch, failure: BaseException, said: str
) -> None:
    client = chatted(monkeypatch, ["one", "two", "/exit", "three"], [failure, "second"])
    assert client.asked == [["Be brief.", "one"], ["Be brief.", "two"]]
    assert said in client.screen.getvalue()
