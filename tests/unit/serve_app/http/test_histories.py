"""Histories as clients of many servers send them: what the models read of each message."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai.types.chat import ChatCompletionMessage

from configs.errors import BadRequest
from serve_app.http.messages import HARMLESS_FIELDS, MOST_NAMED
from serve_app.http.request import ChatRequest, parse
from tests.unit.serve_app.conftest import CHAT, HELLO, MIXTURE, Exchange, Puppets, Scripted

Ask = Callable[..., Exchange]
SYSTEM = {"role": "system", "content": "Be brief."}
CALL = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": '{"zone":"UTC"}'}}
OTHER = {"id": "c2", "type": "custom", "custom": {"name": "sh", "input": "ls -l"}}


def request(*messages: Any, **fields: Any) -> ChatRequest:
    return parse(json.dumps(MIXTURE | {"messages": messages} | fields).encode())


def read(*messages: Any) -> list[tuple[str, str]]:
    """Role and text of each message as engines get it."""
    return [(m["role"], m["content"]) for m in request(*messages).conversation()]


@pytest.mark.parametrize("name", sorted(HARMLESS_FIELDS - {"type"}))
def test_fields_that_change_nothing_are_taken_in_messages_and_parts(name: str) -> None:
    for value in ({"any": ["value"]}, "text", 7, True, [1]):
        part = {"type": "text", "text": "hi", name: value}
        asked = request({"role": "user", "content": [part], name: value})
        assert asked.conversation() == [{"role": "user", "content": "hi"}]
        assert asked.ignored == ()


@pytest.mark.parametrize(
    "message",
    [
        {"reasoning_content": "hm", "reasoning": "hm", "reasoning_details": [{"type": "x"}]},
        {"thinking": "hm", "thinking_blocks": [{"type": "thinking", "thinking": "hm"}]},
        {"provider_specific_fields": {"citations": []}, "annotations": [], "refusal": None},
        {"audio": None, "function_call": None, "tool_calls": [], "name": None, "images": []},
        {"id": "msg_1", "name": "bot", "cache_control": {"type": "ephemeral"}, "model": "gpt"},
        ChatCompletionMessage(role="assistant", content="x").model_dump(),
        {"content": [{"type": "output_text", "text": "x", "annotations": [], "logprobs": []}]},
        {"content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"text": "x"}]},
        {"content": ["x"]},
        {"content": "<think>\nhm\n</think>\n\nx"},
        {"content": "\n<thinking>hm</thinking>x"},
        {"content": None, "refusal": "x"},
        {"content": [{"type": "refusal", "refusal": "x"}]},
    ],
    ids=str,
)
def test_an_answer_is_taken_back_as_any_server_wrote_it(message: dict[str, Any]) -> None:
    asked = request(*HELLO, {"role": "assistant", "content": "x", **message}, *HELLO)
    assert asked.conversation() == [*HELLO, {"role": "assistant", "content": "x"}, *HELLO]
    assert asked.ignored == ()


def test_a_message_of_a_thought_alone_is_left_out_and_a_begun_answer_is_whole() -> None:
    thought = {"role": "assistant", "content": "<think>\nhm\n</think>"}
    said = {"role": "assistant", "content": "x"}
    assert request(*HELLO, thought, said, *HELLO).conversation() == [*HELLO, said, *HELLO]
    assert request(*HELLO, thought).conversation() == [*HELLO, thought]
    code = {"role": "assistant", "content": "Write <think> and </think>."}
    assert request(*HELLO, code, *HELLO).conversation() == [*HELLO, code, *HELLO]


def test_fields_that_nobody_knows_are_named_once() -> None:
    part = {"type": "text", "text": "x", "vendor_part": 1, "empty": ""}
    strange = {"role": "user", "content": [part], "vendor": {"a": 1}, "nothing": None, "none": []}
    asked = request(strange, strange, tools=[{"name": "f"}], tool_choice="none")
    assert asked.ignored == ("tools", "messages.content.vendor_part", "messages.vendor")
    many = {"role": "user", "content": "x"} | {f"{'f' * 100}{n}": 1 for n in range(100)}
    assert request(many).ignored == ("messages." + "f" * 60,)
    many = {"role": "user", "content": "x"} | {f"f{n}": 1 for n in range(100)}
    assert len(request(many).ignored) == MOST_NAMED


async def test_the_answer_names_the_fields_that_nobody_knows(http: httpx.AsyncClient) -> None:
    answer = await http.post(CHAT, json=MIXTURE | {"messages": [HELLO[0] | {"vendor": 1}]})
    assert answer.json()["moa"]["ignored"] == ["messages.vendor"]


def test_tool_turns_are_read_as_text() -> None:
    history = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [CALL, OTHER]},
        {"role": "tool", "tool_call_id": "c1", "content": "12:00"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "a b"}]},
        {"role": "assistant", "content": "It is noon."},
        *HELLO,
    ]
    assert read(*history) == [
        ("user", "hello"),
        ("assistant", 'I call the tool clock with: {"zone":"UTC"}\nI call the tool sh with: ls -l'),
        ("user", "The tool clock returned:\n12:00\n\nThe tool sh returned:\na b"),
        ("assistant", "It is noon."),
        ("user", "hello"),
    ]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"function_call": {"name": "f", "arguments": ""}}, "I call the tool f with: {}"),
        ({"tool_calls": [{"function": {"name": "f"}}]}, "I call the tool f with: {}"),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": {"é": 1}}}]},
            'I call the tool f with: {"é": 1}',
        ),
        (
            {"content": "Wait.", "tool_calls": [CALL]},
            'Wait.\n\nI call the tool clock with: {"zone":"UTC"}',
        ),
    ],
    ids=str,
)
def test_every_form_of_a_call_is_read(message: dict[str, Any], text: str) -> None:
    assert read(*HELLO, {"role": "assistant"} | message, *HELLO)[1] == ("assistant", text)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"role": "tool", "tool_call_id": "x", "content": "1"}, "A tool returned:\n1"),
        ({"role": "tool", "tool_call_id": "x", "name": "f", "content": "1"}, "The tool f returned:\n1"),
        ({"role": "function", "name": "f", "content": "1"}, "The tool f returned:\n1"),
        ({"role": "tool", "tool_call_id": "x", "content": None}, "A tool returned:\n"),
    ],
    ids=str,
)
def test_a_conversation_may_end_with_the_result_of_a_tool(result: dict[str, Any], text: str) -> None:
    assert read(*HELLO, result)[-1] == ("user", text)


def test_calls_of_anybody_but_the_assistant_are_named() -> None:
    asked = request({"role": "user", "content": "x", "tool_calls": [CALL]})
    assert (asked.conversation(), asked.ignored) == (
        [{"role": "user", "content": "x"}],
        ("messages.tool_calls",),
    )


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_message_alone_is_read_as_the_users(role: str) -> None:
    said = {"role": role, "content": "Say hello."}
    assert read(said) == [("user", "Say hello.")]
    assert read(SYSTEM, said) == [("system", "Be brief."), ("user", "Say hello.")]


def test_a_system_message_last_stays_one() -> None:
    history = [*HELLO, {"role": "assistant", "content": "x"}, SYSTEM]
    assert read(*history) == [("user", "hello"), ("assistant", "x"), ("system", "Be brief.")]


@pytest.mark.parametrize("stream", [False, True])
async def test_conversations_that_end_in_any_way_are_answered(
    http: httpx.AsyncClient, stream: bool
) -> None:
    answer = {"role": "assistant", "content": "It is"}
    for messages in ([SYSTEM], [*HELLO, answer, SYSTEM], [*HELLO, answer], [SYSTEM, answer]):
        asked = MIXTURE | {"messages": messages, "stream": stream}
        assert (await http.post(CHAT, json=asked)).status_code == 200


async def test_only_the_aggregator_continues_the_last_message(
    http: httpx.AsyncClient, scripted: Scripted
) -> None:
    begun = {"role": "assistant", "content": "It is"}
    await http.post(CHAT, json=MIXTURE | {"messages": [*HELLO, begun]})
    read_by = {model: list(messages) for model, messages, _ in scripted.asked}
    assert read_by["one"] == read_by["two"] == HELLO
    assert [m["role"] for m in read_by["writer"]] == ["system", "user", "assistant"]
    assert read_by["writer"][-1] == begun


async def test_a_model_asked_by_name_continues_the_last_message(
    http: httpx.AsyncClient, scripted: Scripted
) -> None:
    begun = {"role": "assistant", "content": "It is", "prefix": True}
    asked = MIXTURE | {"model": "one", "messages": [*HELLO, begun]}
    switches = {"continue_final_message": True, "add_generation_prompt": False}
    assert (await http.post(CHAT, json=asked | switches)).status_code == 200
    assert list(scripted.asked[-1][1]) == [*HELLO, {"role": "assistant", "content": "It is"}]


def test_the_beginning_of_an_answer_is_one_message_and_never_empty() -> None:
    one, two = ({"role": "assistant", "content": text} for text in ("a", "b"))
    assert read(*HELLO, one, two) == [("user", "hello"), ("assistant", "a\n\nb")]
    silent: tuple[Any, ...] = (None, "", " ", [])
    for empty in silent:
        assert read(*HELLO, {"role": "assistant", "content": empty}) == [("user", "hello")]


def test_an_assistant_may_be_silent_in_between() -> None:
    assert read(*HELLO, {"role": "assistant", "content": None}, *HELLO)[1] == ("assistant", "")


@pytest.mark.parametrize(
    "kind", ["image_url", "input_image", "input_audio", "file", "input_file", "video_url", "tool_use"]
)
def test_parts_that_cannot_be_read_are_refused_by_name(kind: str) -> None:
    with pytest.raises(BadRequest, match=f"models here read text, .*, not '{kind}'") as caught:
        request(
            {"role": "user", "content": [{"type": "text", "text": "see"}, {"type": kind, kind: {}}]}
        )
    assert caught.value.param == "messages.0.content.1.type"


async def test_a_proposal_that_stands_in_for_a_continuation_says_so(puppets: Puppets, ask: Ask) -> None:
    exchange = ask(messages=[*HELLO, {"role": "assistant", "content": "It is"}])
    await puppets.answer("one")
    await puppets.answer("two")
    (await puppets.call("writer")).end()
    await exchange.start()
    body = await exchange.whole()
    assert body["moa"]["fallback"] == "reference"
    assert body["usage"]["completion_tokens"] == 2
