"""Tools: who is told of them, how calls come back in both APIs, and what is refused by name."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response

from actors.engine import NONE, CallDelta, Delta, Message, collect_answer
from actors.replica import ReplicaStats
from actors.text.tool_prompt import call_text
from configs.errors import BadRequest, EngineError
from configs.schema import Recipe, Sampling
from serve_app.http.api import create_api
from serve_app.http.request import parse_fields
from tests.unit.serve_app.conftest import CHAT, HELLO

SCHEMA = {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}
WEATHER = {"name": "weather", "description": "Weather of a town", "parameters": SCHEMA}
CLOCK = {"name": "clock"}
TOOLS = [{"type": "function", "function": each} for each in (WEATHER, CLOCK)]
PARIS = '{"town": "Paris"}'
CALLS = f"I look.\n{call_text('weather', PARIS)}\n{call_text('clock', '{}')}"
LLAMACPP = {"engine": "llamacpp", "context_tokens": 4096, "weights": [{"path": "/m.gguf"}]}
REMOTE = {"engine": "openai_http", "base_url": "http://x.test/v1", "model": "m"}
SCRIPTED = {"engine": "scripted"}


class Writers:
    """Models whose answers are given, three characters a delta."""

    def __init__(self, **answers: str | Exception | list[Delta]) -> None:
        self._answers = answers
        self.asked: dict[str, tuple[Sequence[Message], Sampling]] = {}

    async def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, _streamed: bool = True
    ) -> AsyncIterator[Delta]:
        self.asked[model] = messages, sampling
        answer = self._answers.get(model, f"advice of {model}")
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            answer = [Delta(text=answer[n : n + 3]) for n in range(0, len(answer), 3)]
            answer.append(Delta(finish_reason="stop", prompt_tokens=9, completion_tokens=8))
        for delta in answer:
            yield delta

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        return await collect_answer(self.stream(model, messages, sampling))

    async def count_tokens(
        self, _model: str, messages: Sequence[Message], _template: Mapping[str, Any] = NONE
    ) -> int:
        return sum(len(message["content"].split()) for message in messages)

    async def token_ends(self, _model: str, texts: Sequence[str]) -> list[list[int]]:
        return [list(range(1, len(text) + 1)) for text in texts]

    async def is_alive(self, _model: str) -> bool:
        return True

    async def stats(self, _model: str) -> ReplicaStats:
        return ReplicaStats(0, 0, 0, 0, 0, 0, 0)


def recipe(writer: dict[str, Any] = LLAMACPP, **aggregator: Any) -> Recipe:
    models = {"one": SCRIPTED, "two": SCRIPTED, "writer": writer}
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": models,
            "layers": [{"proposers": [{"model": "one"}, {"model": "two"}]}],
            "aggregator": {"model": "writer", **aggregator},
            "show_proposals": False,
        }
    )


async def post(models: Writers, path: str = CHAT, served: Recipe | None = None, **more: Any) -> Any:
    app = create_api(served or recipe(), models)
    body = {"model": "mix"} | ({"messages": HELLO} if path == CHAT else {"input": "hello"}) | more
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 5))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        response = await client.post(path, json=body)
    if not more.get("stream"):
        return response.json()
    lines = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


async def test_the_calls_of_an_answer_come_back_whole() -> None:
    models = Writers(writer=CALLS)
    whole = ChatCompletion.model_validate(await post(models, tools=TOOLS))
    (choice,) = whole.choices
    assert choice.finish_reason == "tool_calls"
    assert (choice.message.content or "").strip() == "I look."
    calls: Any = choice.message.tool_calls
    named = [(call.function.name, call.function.arguments) for call in calls]
    assert named == [("weather", PARIS), ("clock", "{}")]
    assert len({call.id for call in calls}) == 2


async def test_a_stream_has_the_calls_as_openai_streams_them() -> None:
    chunks = await post(Writers(writer=CALLS), tools=TOOLS, stream=True)
    read = [ChatCompletionChunk.model_validate(chunk) for chunk in chunks]
    pieces: list[Any] = [p for chunk in read for p in chunk.choices[0].delta.tool_calls or ()]
    first = [(p.index, p.type, p.function.name) for p in pieces if p.id]
    assert first == [(0, "function", "weather"), (1, "function", "clock")]
    assert "".join(p.function.arguments for p in pieces if p.index == 0) == PARIS
    assert len([p for p in pieces if p.index == 0]) > 4
    assert read[-1].choices[0].finish_reason == "tool_calls"
    assert "call_tool" not in json.dumps(chunks)


async def test_only_the_aggregator_is_told_of_tools_and_held_to_them() -> None:
    models = Writers(writer="no call")
    await post(models, tools=TOOLS)
    for proposer in ("one", "two"):
        messages, sampling = models.asked[proposer]
        assert messages == HELLO
        assert "tool_use" not in sampling.extra
    messages, sampling = models.asked["writer"]
    assert messages[0]["role"] == "system"
    assert messages[0]["content"].count("advice of") == 2
    assert '"name": "weather"' in messages[0]["content"]
    assert sampling.extra["tool_use"]["choice"] == "auto"


async def test_a_result_is_read_by_all_and_by_the_aggregator_in_the_form_of_its_calls() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": PARIS}}
    talk = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "18 degrees"},
    ]
    models = Writers(writer="It is mild.")
    answer = await post(models, tools=TOOLS, messages=talk)
    assert answer["choices"][0]["message"]["content"] == "It is mild."
    prose, _ = models.asked["one"]
    assert prose[1]["content"] == f"I call the tool weather with: {PARIS}"
    assert prose[2]["content"] == "The tool weather returned:\n18 degrees"
    own, _ = models.asked["writer"]
    assert own[2]["content"] == call_text("weather", PARIS)
    assert own[3]["content"] == "<tool_result>\n18 degrees\n</tool_result>"


async def test_a_server_is_sent_the_tools_and_tells_calls_itself() -> None:
    pieces = [CallDelta(0, "c9", "weather", ""), CallDelta(0, arguments=PARIS)]
    said = [*(Delta(tool_calls=(piece,)) for piece in pieces), Delta(finish_reason="tool_calls")]
    models = Writers(writer=said)
    answer = await post(models, served=recipe(REMOTE), tools=TOOLS)
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert call == {
        "id": "c9",
        "type": "function",
        "function": {"name": "weather", "arguments": PARIS},
    }
    messages, _ = models.asked["writer"]
    assert "# Tools" not in messages[0]["content"]


@pytest.mark.parametrize("stream", [False, True])
async def test_older_clients_read_a_function_call(stream: bool) -> None:
    more: dict[str, Any] = {"functions": [WEATHER, CLOCK], "stream": stream}
    answer = await post(Writers(writer=CALLS), **more)
    if not stream:
        choice = answer["choices"][0]
        assert choice["finish_reason"] == "function_call"
        assert choice["message"]["function_call"] == {"name": "weather", "arguments": PARIS}
        return
    parts = [chunk["choices"][0]["delta"].get("function_call") for chunk in answer]
    assert [part["name"] for part in parts if part and "name" in part] == ["weather"]
    assert "".join(part["arguments"] for part in parts if part) == PARIS
    assert answer[-1]["choices"][0]["finish_reason"] == "function_call"


@pytest.mark.parametrize("strict", [True, False, None])
def test_strictness_is_read_in_all_forms(strict: bool | None) -> None:
    inner = {"type": "function", "function": {**CLOCK, "strict": strict}}
    flat = {"type": "function", "strict": strict, **CLOCK}
    schema = {"name": "n", "schema": SCHEMA, "strict": strict}
    for form in ({"json_schema": schema}, schema):
        fields = {"tools": [inner, flat], "response_format": {"type": "json_schema", **form}}
        asked = parse_fields({"model": "mix", "messages": HELLO, **fields})
        assert asked.tool_use is not None
        assert asked.structure is not None
        assert [tool.strict for tool in asked.tool_use.tools] == [strict, strict]
        assert asked.structure.strict is strict


async def test_the_responses_api_has_calls_as_items() -> None:
    flat = [{"type": "function", "strict": True, **each} for each in (WEATHER, CLOCK)]
    answer = await post(Writers(writer=CALLS), "/v1/responses", tools=flat, tool_choice="auto")
    response = Response.model_validate(answer)
    kinds = [item.type for item in response.output]
    assert kinds == ["message", "function_call", "function_call"]
    called: Any = response.output[1]
    assert (called.name, called.arguments, called.status) == ("weather", PARIS, "completed")
    assert called.call_id.startswith("call_")
    assert answer["status"] == "completed"
    assert [tool["name"] for tool in answer["tools"]] == ["weather", "clock"]


async def test_a_stream_of_the_responses_api_has_the_events_of_calls() -> None:
    only = call_text("weather", PARIS)
    flat = [{"type": "function", **WEATHER}]
    events = await post(Writers(writer=only), "/v1/responses", tools=flat, stream=True)
    names = [event["type"].removeprefix("response.") for event in events]
    assert names[2] == "output_item.added"
    assert names[-3:] == ["function_call_arguments.done", "output_item.done", "completed"]
    pieces = [e["delta"] for e in events if e["type"].endswith("arguments.delta")]
    assert "".join(pieces) == PARIS
    assert len(pieces) > 4
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["function_call"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


async def test_an_engine_that_cannot_is_named_where_a_call_has_to_be() -> None:
    models = Writers(writer="text")
    refused = await post(models, served=recipe(SCRIPTED), tools=TOOLS, tool_choice="required")
    assert refused["error"]["param"] == "tool_choice"
    assert "the engine 'scripted' cannot have its model call tools" in refused["error"]["message"]
    left = await post(models, served=recipe(SCRIPTED), tools=TOOLS)
    assert left["moa"]["ignored"] == ["tools"]


async def test_a_schema_that_llama_cpp_cannot_hold_is_refused_before_any_model_works() -> None:
    items = {"type": "object", "properties": {"x": {"type": "array", "uniqueItems": True}}}
    asked = {"type": "json_schema", "json_schema": {"name": "n", "schema": items}}
    models = Writers()
    refused = await post(models, response_format=asked)
    assert refused["error"]["param"] == "response_format"
    assert "'uniqueItems' at properties.x.uniqueItems" in refused["error"]["message"]
    assert not models.asked
    tool = {"type": "function", "function": {"name": "weather", "parameters": items}}
    assert "choices" in await post(Writers(), tools=[tool])
    assert "choices" in await post(Writers(), served=recipe(REMOTE), response_format=asked)


async def test_parts_of_a_schema_that_need_not_be_held_are_left_out_and_named() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "array", "uniqueItems": True}}}
    form = {"type": "json_schema", "json_schema": {"name": "n", "strict": False, "schema": schema}}
    models = Writers(writer='{"x": []}')
    answer = await post(models, response_format=form)
    assert answer["moa"]["ignored"] == ["response_format.schema"]
    held = {"type": "object", "properties": {"x": {"type": "array"}}}
    assert models.asked["writer"][1].extra["structure"] == {"json_schema": held, "strict": False}


async def test_a_proposal_that_stands_in_was_not_held_to_the_tools() -> None:
    models = Writers(writer=EngineError("dead"))
    answer = await post(models, tools=TOOLS, tool_choice="required")
    assert answer["choices"][0]["message"]["content"] == "advice of one"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["moa"]["unheld"] == ["tools"]
    assert answer["moa"]["degraded"] is True


LONG = {"name": "long", "description": "word " * 5000}
CALL = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": PARIS}}
TOO_MANY = [*TOOLS, {"type": "function", "function": LONG}]


@pytest.mark.parametrize("model", ["mix", "writer"])
@pytest.mark.parametrize("stream", [False, True])
async def test_tools_that_do_not_fit_are_left_out_where_no_call_has_to_be(
    model: str, stream: bool
) -> None:
    models = Writers(writer="The sky is blue.")
    result = [
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "a", "content": "rain"},
    ]
    fields: dict[str, Any] = {"model": model, "messages": [*HELLO, *result], "stream": stream}
    answer = await post(models, tools=TOO_MANY, **fields)
    last = answer[-1] if stream else answer
    assert last["moa"]["unheld"] == ["tools"]
    assert last["moa"]["degraded"] is False
    assert last["choices"][0]["finish_reason"] == "stop"
    messages, sampling = models.asked["writer"]
    told = json.dumps(messages)
    assert "<tools>" not in told
    assert "call_tool" not in told
    assert "rain" in told
    assert "tool_use" not in sampling.extra


async def test_tools_that_do_not_fit_are_refused_where_a_call_has_to_be() -> None:
    models = Writers(writer=CALLS)
    refused = await post(models, tools=TOO_MANY, tool_choice="required")
    assert refused["error"]["code"] == "context_length_exceeded"
    assert models.asked == {}


async def test_tools_do_not_make_a_conversation_fit_that_is_too_long() -> None:
    models = Writers(writer=CALLS)
    long = [{"role": "user", "content": "word " * 5000}]
    refused = await post(models, tools=TOOLS, messages=long)
    assert refused["error"]["code"] == "context_length_exceeded"
    assert models.asked == {}


async def test_a_fallback_without_room_answers_without_the_tools() -> None:
    served = recipe(LLAMACPP | {"context_tokens": 16384}).model_dump()
    served["models"]["small"] = LLAMACPP | {"context_tokens": 1024}
    served["aggregator"]["fallbacks"] = ["small"]
    models = Writers(writer=EngineError("dead"), small="The sky is blue.")
    answer = await post(models, served=Recipe.model_validate(served), tools=TOO_MANY, max_tokens=64)
    assert "tool_use" in models.asked["writer"][1].extra
    assert "tool_use" not in models.asked["small"][1].extra
    assert answer["moa"]["unheld"] == ["tools"]
    assert answer["choices"][0]["message"]["content"] == "The sky is blue."


async def test_no_proposal_is_picked_where_the_answer_may_call_a_tool() -> None:
    models = Writers(writer=CALLS)
    answer = await post(models, served=recipe(method="select"), tools=TOOLS)
    assert answer["moa"]["method"] == "merge"
    assert "holds the answer to tools" in answer["moa"]["why"]


NAMED = {"type": "function", "function": {"name": "clock"}}
ALLOWED = {"mode": "required", "tools": [NAMED, TOOLS[0]]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (["weather", "clock"], "auto", True)),
        ({"parallel_tool_calls": False}, (["weather", "clock"], "auto", False)),
        ({"tool_choice": "any"}, (["weather", "clock"], "required", True)),
        ({"tool_choice": {"type": "any"}}, (["weather", "clock"], "required", True)),
        ({"tool_choice": NAMED}, (["clock"], "required", False)),
        ({"tool_choice": {"type": "function", "name": "clock"}}, (["clock"], "required", False)),
        ({"tool_choice": {"type": "tool", "name": "clock"}}, (["clock"], "required", False)),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": ALLOWED}},
            (["weather", "clock"], "required", True),
        ),
        ({"tools": [{"name": "f", "input_schema": SCHEMA}]}, (["f"], "auto", True)),
        ({"tools": [*TOOLS, {"type": "web_search"}]}, (["weather", "clock"], "auto", True)),
        ({"tool_choice": "none"}, None),
        ({"tools": []}, None),
    ],
    ids=str,
)
def test_forms_of_tools_and_choices(fields: dict[str, Any], expected: Any) -> None:
    asked = parse_fields({"model": "mix", "messages": HELLO, "tools": TOOLS, **fields})
    use = asked.tool_use
    found = None if use is None else (list(use.names), use.choice, use.parallel)
    assert found == expected
    is_searching = len(fields.get("tools", ())) == 3
    is_off = fields.get("tool_choice") == "none"
    expect = ("tools.web_search",) if is_searching else ("tools",) if is_off else ()
    assert asked.ignored == expect


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": {}}, "tools"),
        ({"tool_use": {"tools": [CLOCK]}}, "tool_use"),
        ({"tools": ["clock"]}, "tools.0"),
        ({"tools": [{"type": "function"}]}, "tools.0.name"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "function", "function": 3}]}, "tools.0.function"),
        ({"tools": [{"name": "a b"}]}, "tools.0.name"),
        ({"tools": [{"name": "f", "parameters": "x"}]}, "tools.0.parameters"),
        ({"tools": [{"name": "f", "description": 3}]}, "tools.0.description"),
        ({"tools": [{"name": "f", "description": "x" * 65_537}]}, "tools.0.description"),
        ({"tools": [TOOLS[0]] * 129}, "tools"),
        ({"functions": [{}], "tools": []}, "functions.0.name"),
        ({"tool_choice": "perhaps"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "rm"}}, "tool_choice"),
        ({"tool_choice": 3}, "tool_choice"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
        ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
    ],
    ids=str,
)
def test_wrong_tools_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_fields({"model": "mix", "messages": HELLO, "tools": TOOLS, **fields})
    assert refused.value.param == param
