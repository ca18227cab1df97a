"""Calls of tools are read out of a model's text, however the text is cut into pieces."""

import json
import random
from collections.abc import AsyncIterator

import pytest

from actors.engine import CallDelta, Delta
from actors.text.tool_prompt import call_text
from actors.text.tool_reader import CallReader, with_calls
from configs.tool_use import ToolUse

USE = ToolUse.model_validate({"tools": [{"name": "weather"}, {"name": "clock"}]})
PARIS = '{"town": "Paris \\" } <call_tool> </tool_call>", "days": [1, {"a": "]"}]}'
CALL, CLOCK = call_text("weather", PARIS), call_text("clock", "{}")

READ: dict[str, tuple[str, str, list[tuple[str, str]]]] = {
    "text": ("Sunny <b> {", "Sunny <b> {", []),
    "call": (CALL, "", [("weather", PARIS)]),
    "words before": (f"I look.\n{CALL}", "I look.\n", [("weather", PARIS)]),
    "two": (f"{CALL}\n{CLOCK}\n", "", [("weather", PARIS), ("clock", "{}")]),
    "unknown": (
        call_text("rm", "{}"),
        call_text("rm", "{}"),
        [],
    ),
    "other order": (
        '<call_tool>{"arguments": {"a": 1}, "name": "clock"}</call_tool>',
        "",
        [("clock", '{"a": 1}')],
    ),
    "marks of Hermes": (
        CALL.replace("call_tool>", "tool_call>", 1).replace("</call_tool>", "</tool_call>"),
        "",
        [("weather", PARIS)],
    ),
    "none given": ('<call_tool>\n{"name": "clock"}\n</call_tool>', "", [("clock", "{}")]),
    "bare": ('{"name": "clock", "arguments": {"a": 1}}', "", [("clock", '{"a": 1}')]),
    "fenced": ('```json\n{"name": "clock", "parameters": {}}\n```', "", [("clock", "{}")]),
    "listed": ('[{"name": "clock", "arguments": {}}]', "", [("clock", "{}")]),
    "other JSON": ('{"name": "Ann", "arguments": {}}', '{"name": "Ann", "arguments": {}}', []),
    "code": ("```python\nprint(1)\n```", "```python\nprint(1)\n```", []),
    "cut": (CALL[:60], "", [("weather", PARIS[: 60 - CALL.index("{", 13) - 34])]),
    "broken": ("<call_tool>\nweather!\n</call_tool>", "<call_tool>\nweather!\n</call_tool>", []),
    "begun": ("Look: <call_", "Look: <call_", []),
}


def read(text: str, size: int | None, reader: CallReader | None = None) -> tuple[str, list[CallDelta]]:
    reader = reader or CallReader(USE)
    draw = random.Random(size)
    shown, calls = "", list[CallDelta]()
    while text:
        n = size or draw.randint(1, 30)
        more, pieces = reader.feed(text[:n])
        text, shown, calls = text[n:], shown + more, calls + pieces
    more, pieces = reader.end()
    return shown + more, calls + pieces


def joined(pieces: list[CallDelta]) -> list[tuple[str, str]]:
    calls: list[tuple[str, str]] = []
    for piece in pieces:
        if piece.name:
            assert piece.id.startswith("call_")
            assert piece.index == len(calls)
            calls.append((piece.name, ""))
        name, arguments = calls[piece.index]
        calls[piece.index] = name, arguments + piece.arguments
    return calls


@pytest.mark.parametrize("size", [1, 2, 7, 10_000, None], ids=str)
@pytest.mark.parametrize("name", READ)
def test_calls_and_text_are_told_apart_in_any_pieces(name: str, size: int | None) -> None:
    written, text, calls = READ[name]
    shown, pieces = read(written, size)
    if name == "cut":
        assert shown == ""
        assert PARIS.startswith(joined(pieces)[0][1])
        return
    assert shown == text
    assert joined(pieces) == calls
    for _, arguments in calls:
        json.loads(arguments)


def test_arguments_come_while_they_are_written() -> None:
    reader = CallReader(USE)
    pieces = [reader.feed(character)[1] for character in CALL]
    assert sum(map(len, pieces)) > 30


def test_a_second_call_is_dropped_where_only_one_may_be() -> None:
    single = USE.model_copy(update={"parallel": False})
    shown, pieces = read(f"{CALL}\n{CLOCK}", 5, CallReader(single))
    assert joined(pieces) == [("weather", PARIS)]
    assert shown == ""


def test_a_call_without_marks_is_text_where_the_text_has_a_form() -> None:
    bare = '{"name": "clock", "arguments": {}}'
    assert read(bare, 3, CallReader(USE, may_be_bare=False)) == (bare, [])


async def test_an_answer_with_calls_ends_with_tool_calls_and_keeps_its_counts() -> None:
    async def written() -> AsyncIterator[Delta]:
        yield Delta(reasoning="hm")
        for n in range(0, len(CALL), 9):
            yield Delta(text=CALL[n : n + 9])
        yield Delta(finish_reason="stop", prompt_tokens=5, completion_tokens=7)
        yield Delta(engine_s=1.5, last=True)

    deltas = [delta async for delta in with_calls(written(), USE, may_be_bare=True)]
    assert deltas[0] == Delta(reasoning="hm")
    assert joined([call for delta in deltas for call in delta.tool_calls]) == [("weather", PARIS)]
    assert [d.finish_reason for d in deltas if d.finish_reason] == ["tool_calls"]
    assert deltas[-1] == Delta(engine_s=1.5, last=True)
    assert sum(delta.completion_tokens for delta in deltas) == 7


async def test_an_answer_without_calls_stays_as_it_is() -> None:
    async def written() -> AsyncIterator[Delta]:
        yield Delta(text="Sunny")
        yield Delta(text="<", finish_reason="length")

    deltas = [delta async for delta in with_calls(written(), USE, may_be_bare=True)]
    assert "".join(delta.text for delta in deltas) == "Sunny<"
    assert deltas[-1].finish_reason == "length"
