"""POST /v1/responses, as the types and the client of the package `openai` read it."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_create_params import (
    ResponseCreateParamsNonStreaming,
    ResponseCreateParamsStreaming,
)
from pydantic import TypeAdapter

from actors.engine import Delta
from configs.errors import BadRequest, EngineError
from serve_app.http.api import create_api
from serve_app.http.responses_reply import ResponsesReply
from serve_app.http.responses_request import IGNORED, STATEFUL, parse_responses
from serve_app.mixture.events import AnswerDelta
from tests.unit.serve_app.conftest import HELLO, Exchange, Puppets, Scripted, recipe

PATH = "/v1/responses"
ASKED: dict[str, Any] = {"model": "mix", "input": "hello"}
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
PARAMETERS = sorted(
    ResponseCreateParamsNonStreaming.__annotations__ | ResponseCreateParamsStreaming.__annotations__
)

Ask = Callable[..., Exchange]


def read(given: Any, **fields: Any) -> list[tuple[str, str]]:
    """Role and text of each message as engines get it."""
    asked = parse_responses(json.dumps({"model": "mix", "input": given} | fields).encode())
    return [(m["role"], m["content"]) for m in asked.chat.conversation()]


def refused_for(fields: dict[str, Any]) -> str | None:
    """The parameter for which a request is refused; None if it is read."""
    try:
        parse_responses(json.dumps(ASKED | fields).encode())
    except BadRequest as error:
        return (error.param or "").partition(".")[0]
    return None


def events(raw: str) -> list[Any]:
    """The events of a stream, each checked against its type."""
    found = []
    for block in raw.removesuffix("\n\n").split("\n\n"):
        name, data = block.removeprefix(": keep-alive\n").split("\n")
        event = EVENT.validate_json(data.removeprefix("data: "))
        assert name == f"event: {event.type}"
        found.append(event)
    return found


@pytest.mark.parametrize("model", ["mix", "one"])
async def test_an_answer_is_openais_response(http: httpx.AsyncClient, model: str) -> None:
    answer = await http.post(PATH, json=ASKED | {"model": model, "seed": 1, "temperature": 0.5})
    assert answer.headers["x-slimmoa-degraded"] == "false"
    response = Response.model_validate(answer.json())
    assert (response.object, response.status, response.model) == ("response", "completed", model)
    assert len(response.output_text.split()) == 6
    kinds = [item.type for item in response.output]
    assert kinds == ["reasoning"] * (2 if model == "mix" else 0) + ["message"]
    usage = response.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (2, 6, 8)
    extra = response.model_extra or {}
    assert (extra["store"], response.temperature) == (False, 0.5)  # nothing is kept, and that is said
    assert (extra["moa"]["type"], extra["system_fingerprint"]) == ("summary", "slimmoa")


async def test_it_is_the_answer_of_a_chat_completion(http: httpx.AsyncClient) -> None:
    chat = {"model": "mix", "messages": HELLO, "seed": 3}
    said = (await http.post("/v1/chat/completions", json=chat)).json()["choices"][0]["message"]
    response = Response.model_validate((await http.post(PATH, json=ASKED | {"seed": 3})).json())
    assert response.output_text == said["content"]


async def test_each_proposal_is_an_item_of_reasoning(http: httpx.AsyncClient) -> None:
    whole = (await http.post(PATH, json=ASKED | {"seed": 1})).json()
    shown = [item["summary"][0]["text"] for item in whole["output"] if item["type"] == "reasoning"]
    assert sorted(text.partition("\n")[0] for text in shown) == [
        "**Proposal of one**",
        "**Proposal of two**",
    ]
    assert all(len(text.split("\n\n")[1].split()) == 6 for text in shown)
    assert all(text.endswith("\n\n") for text in shown)  # many a client joins them without a space
    hidden = (await http.post(PATH, json=ASKED | {"moa": {"events": False}})).json()
    assert [item["type"] for item in hidden["output"]] == ["message"]


@pytest.mark.parametrize(
    ("moa", "by_recipe", "shown"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"proposals": False}, True, False),
        ({"proposals": True}, False, True),
        ({"events": True}, False, True),
        ({"events": False, "proposals": True}, True, False),
    ],
    ids=str,
)
async def test_recipe_and_request_say_whether_proposals_are_items(
    scripted: Scripted, moa: dict[str, Any], by_recipe: bool, shown: bool
) -> None:
    api = create_api(recipe().model_copy(update={"show_proposals": by_recipe}), scripted)
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answer = (await http.post(PATH, json=ASKED | {"moa": moa})).json()
        stream = (await http.post(PATH, json=ASKED | {"moa": moa, "stream": True})).text
    assert ("reasoning" in {item["type"] for item in answer["output"]}) == shown
    assert ("reasoning_summary_text" in stream) == shown


async def test_a_stream_is_openais_events_in_order(http: httpx.AsyncClient) -> None:
    raw = (await http.post(PATH, json=ASKED | {"stream": True, "seed": 1})).text
    seen = events(raw)
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    kinds = [event.type.removeprefix("response.") for event in seen]
    proposal = [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
    ]
    message = ["output_item.added", "content_part.added", *["output_text.delta"] * 6]
    ends = ["output_text.done", "content_part.done", "output_item.done", "completed"]
    assert kinds == ["created", "in_progress", *proposal, *proposal, *message, *ends]
    last = seen[-1].response
    assert "".join(event.delta for event in seen if event.type.endswith("output_text.delta")) == (
        last.output_text
    )
    items = [event.item.to_dict() for event in seen if event.type == "response.output_item.done"]
    assert items == [item.to_dict() for item in last.output]
    assert last.usage.total_tokens == 8


async def test_a_stream_of_one_model_numbers_its_events_in_their_order(http: httpx.AsyncClient) -> None:
    raw = (await http.post(PATH, json=ASKED | {"stream": True, "model": "one"})).text
    numbers = [event.sequence_number for event in events(raw)]
    assert numbers == list(range(len(numbers)))


async def test_parameters_that_nobody_reads_are_repeated_as_far_as_a_response_has_them(
    http: httpx.AsyncClient,
) -> None:
    odd = {"metadata": {"a": "b", "c": 1}, "user": ["x"], "reasoning": {"effort": "auto", "summary": 7}}
    raw = (await http.post(PATH, json=ASKED | odd)).content
    response = Response.model_validate_json(raw, strict=True)
    assert (response.metadata, response.user) == ({"a": "b"}, None)
    assert response.reasoning is not None
    assert response.reasoning.effort is None
    raw = (await http.post(PATH, json=ASKED | {"metadata": "text"})).content
    assert Response.model_validate_json(raw, strict=True).metadata is None


async def test_an_answer_cut_by_its_limit_is_incomplete(http: httpx.AsyncClient) -> None:
    whole = Response.model_validate(
        (await http.post(PATH, json=ASKED | {"max_output_tokens": 2})).json()
    )
    assert (whole.status, whole.max_output_tokens) == ("incomplete", 2)
    assert whole.incomplete_details is not None
    assert whole.incomplete_details.reason == "max_output_tokens"
    raw = (await http.post(PATH, json=ASKED | {"max_output_tokens": 2, "stream": True})).text
    assert events(raw)[-1].type == "response.incomplete"


def test_the_reasoning_of_the_answer_is_an_item_of_its_own() -> None:
    reply = ResponsesReply(parse_responses(json.dumps(ASKED).encode()), shows_proposals=True)
    deltas = [Delta(reasoning="Hm"), Delta(reasoning="."), Delta(text="Yes")]
    seen = events(reply.role() + reply.chunks([AnswerDelta(d) for d in deltas]) + reply.chunks([]))
    kinds = [event.type.removeprefix("response.") for event in seen]
    assert kinds[2:] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "in_progress",  # a sign of life
    ]
    assert [event.output_index for event in seen[2:-1]] == [0] * 7 + [1] * 3
    failed = events(reply.error(EngineError("it broke")))[-1]
    assert failed.response.error.to_dict() == {"code": "server_error", "message": "it broke"}


async def test_a_failure_after_the_beginning_is_an_event(puppets: Puppets, ask: Ask) -> None:
    exchange = ask(stream=True, path=PATH)
    assert (await exchange.start())["status"] == 200
    for model in ("one", "two"):
        (await puppets.call(model)).fail(EngineError("it broke", model=model))
    raw = ""
    while "response.failed" not in raw:
        raw += (await exchange.body()).decode()
    error, failed = events(raw)[-2:]
    assert (error.type, error.code, error.param) == ("error", "quorum_not_met", None)
    assert error.error["code"] == "quorum_not_met"  # what OpenAI's servers send, and its clients raise
    assert failed.response.status == "failed"
    for message in (error.message, error.error["message"], failed.response.error.message):
        assert "it broke" in message


async def test_openais_client_raises_such_a_failure(
    puppets: Puppets, listen: Callable[..., Any]
) -> None:
    client = await listen(create_api(recipe(), puppets))
    stream = await client.responses.create(**ASKED, stream=True)
    for model in ("one", "two"):
        (await puppets.call(model)).fail(EngineError("it broke", model=model))
    with pytest.raises(openai.APIError, match="it broke") as failure:
        [event async for event in stream]
    assert failure.value.code == "quorum_not_met"


@pytest.mark.parametrize(
    ("given", "conversation"),
    [
        ("hi", [("user", "hi")]),
        ([{"role": "user", "content": "hi"}], [("user", "hi")]),
        (
            [
                {"type": "message", "role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                {"type": "reasoning", "id": "rs_1", "summary": []},
                {"type": "item_reference", "id": "rs_2"},
                {
                    "type": "message",
                    "id": "msg_1",
                    "role": "assistant",
                    "status": "completed",
                    "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
                },
                {
                    "type": "function_call",
                    "call_id": "c",
                    "name": "clock",
                    "arguments": "{}",
                    "id": "f",
                },
                {"type": "function_call_output", "call_id": "c", "output": "12:00"},
                {"type": "custom_tool_call", "call_id": "d", "name": "sh", "input": "ls"},
                {
                    "type": "custom_tool_call_output",
                    "call_id": "d",
                    "output": [{"type": "input_text", "text": "a"}],
                },
            ],
            [
                ("system", "Be brief."),
                ("user", "hi"),
                ("assistant", "Hello\n\nI call the tool clock with: {}"),
                ("user", "The tool clock returned:\n12:00"),
                ("assistant", "I call the tool sh with: ls"),
                ("user", "The tool sh returned:\na"),
            ],
        ),
    ],
    ids=["text", "message", "items"],
)
def test_the_input_is_read_as_a_conversation(given: Any, conversation: list[tuple[str, str]]) -> None:
    assert read(given) == conversation
    assert read(given, instructions="Be kind.") == [("system", "Be kind."), *conversation]


async def test_what_another_server_did_by_itself_is_left_out_and_named(http: httpx.AsyncClient) -> None:
    items = [
        {"role": "user", "content": "hi"},
        {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"type": "search"}},
        {"type": "mcp_list_tools", "id": "m", "server_label": "x", "tools": []},
        {"type": "message", "role": "assistant", "content": "It is noon."},
        {"type": "message", "role": "assistant", "content": "Or one.", "tool_calls": "odd"},
        {"type": "shell_call", "call_id": "s", "status": "completed", "action": {"commands": ["ls"]}},
        {"type": "shell_call_output", "call_id": "s", "output": [{"stdout": "a"}]},
    ]
    asked = ASKED | {"input": items[:4] + items[5:]}
    response = Response.model_validate((await http.post(PATH, json=asked)).json())
    assert (response.model_extra or {})["moa"]["ignored"] == [
        "input.mcp_list_tools",
        "input.web_search_call",
    ]
    assert read(items) == [
        ("user", "hi"),
        ("assistant", "It is noon."),
        ("assistant", 'Or one.\n\nI call the tool shell with: {"action": {"commands": ["ls"]}}'),
        ("user", 'The tool shell returned:\n[{"stdout": "a"}]'),
    ]


def test_what_an_answer_was_can_be_sent_back() -> None:
    reply = ResponsesReply(parse_responses(json.dumps(ASKED).encode()), shows_proposals=True)
    reply.chunks([AnswerDelta(Delta(reasoning="Hm")), AnswerDelta(Delta(text="Hello"))])
    reply._close("completed")
    given = [{"role": "user", "content": "hi"}, *reply._output, {"role": "user", "content": "go on"}]
    assert read(given) == [("user", "hi"), ("assistant", "Hello"), ("user", "go on")]


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_of_the_openai_client_is_honoured_ignored_or_refused_by_name(name: str) -> None:
    if name in ("model", "input"):
        return
    blamed = refused_for({name: {"any": "value"}})
    assert blamed in (None, name)
    assert (blamed == name) or name not in STATEFUL


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_what_changes_nothing_is_taken(name: str) -> None:
    assert read("hi", **{name: True}) == [("user", "hi")]


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "keeps no responses"),
        ({"conversation": "conv_1"}, "conversation", "keeps no responses"),
        ({"background": True}, "background", "is not supported here"),
        (
            {"text": {"format": {"type": "json_object"}}},
            "text.format",
            "'text.format' is not supported",
        ),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0", "keeps no responses"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0", "set `store` to false"),
        ({"input": [{"id": "x"}]}, "input.0", "keeps no responses"),
        ({"input": [{"type": "computer_call"}]}, "input.0.type", "'computer_call' cannot be read here"),
        ({"input": 7}, "input", "has to be a text or an array"),
        ({"input": []}, "input", "nothing that could be answered"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input.0.content.0.type",
            "models here read text",
        ),
        (
            {"instructions": "Be kind.", "input": [{"type": "reasoning"}, {"role": "user"}]},
            "input.1.content",
            "input.1.content: Field required",
        ),
        ({"reasoning": "high"}, "reasoning", "has to be an object"),
        ({"instructions": ["x"]}, "instructions", "has to be a text"),
        ({"max_output_tokens": 0}, "max_output_tokens", "max_output_tokens: Input should be greater"),
        ({"max_output_tokens": 9000}, "max_output_tokens", "max_output_tokens is too large"),
        ({"reasoning": {"effort": 1}}, "reasoning.effort", "reasoning.effort: Input should be"),
        ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
        ({"temprature": 1}, "temprature", "not a parameter that this server knows"),
    ],
    ids=str,
)
async def test_what_cannot_be_answered_is_refused_by_name(
    http: httpx.AsyncClient, fields: dict[str, Any], param: str, says: str
) -> None:
    response = await http.post(PATH, json=ASKED | fields)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert says in error["message"]


async def test_openais_client_gets_its_types(scripted: Scripted, listen: Callable[..., Any]) -> None:
    client: openai.AsyncOpenAI = await listen(create_api(recipe(), scripted))
    answer = await client.responses.create(
        model="mix", input="x", store=True, reasoning={"effort": "low"}
    )
    assert len(answer.output_text.split()) == 6
    again: Any = [{"role": "user", "content": "x"}, *answer.output, {"role": "user", "content": "y"}]
    async with client.responses.stream(model="mix", input=again) as stream:
        final = await stream.get_final_response()
    assert len(final.output_text.split()) == 6
    with pytest.raises(openai.BadRequestError, match="keeps no responses"):
        await client.responses.create(model="mix", input="x", previous_response_id=answer.id)
    with pytest.raises(openai.NotFoundError, match="keeps no answers"):
        await client.responses.retrieve(answer.id)
