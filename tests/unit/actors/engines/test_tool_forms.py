"""How each engine is told of tools, and what servers say of calls."""

import json
from typing import Any

import pytest

from actors.engine import CallDelta
from actors.engines.llamacpp_sampling import sampling_fields as llamacpp_fields
from actors.engines.llamacpp_schema import one_line
from actors.engines.openai_answer import StreamedAnswer
from actors.engines.openai_chunks import read_chunk
from actors.engines.openai_request import sampling_fields as http_fields
from actors.engines.vllm_arguments import sampling_arguments
from configs.errors import BadRequest
from configs.schema import Sampling
from configs.tool_use import Tool

SCHEMA = {"type": "object", "properties": {"town": {"$ref": "#/$defs/T"}}, "$defs": {"T": {}}}
WEATHER: dict[str, Any] = {"name": "weather", "description": "of a town", "parameters": SCHEMA}


def asked(structure: dict[str, Any] | None = None, **use: Any) -> Sampling:
    extra: dict[str, Any] = {"tool_use": {"tools": [WEATHER, {"name": "clock"}], **use}}
    if structure is not None:
        extra["structure"] = structure
    return Sampling(extra=extra)


def test_llamacpp_gets_one_grammar_for_calls_and_text() -> None:
    lines = llamacpp_fields(asked())["grammar"].split("\n")
    assert lines[:2] == ["%llguidance {}", "start: FREE | before calls"]
    assert lines[-2] == f"t0: %json {json.dumps(one_line(SCHEMA))}"
    assert 'calls: call ( "\\n<call_tool>" call )*' in lines
    forced = llamacpp_fields(asked(choice="required", parallel=False))["grammar"].split("\n")
    assert forced[1:3] == ['start: "<call_tool>" calls', "calls: call"]
    shaped = llamacpp_fields(asked({"json_object": True}))["grammar"].split("\n")
    assert shaped[1:3] == [
        'start: "<call_tool>" calls | form',
        f"form: %json {json.dumps(one_line({'type': 'object'}))}",
    ]
    with pytest.raises(BadRequest, match="grammar that may also call tools"):
        llamacpp_fields(asked({"grammar": "root ::= [0-9]"}))


def test_vllm_gets_a_structural_tag() -> None:
    tag = json.loads(sampling_arguments(asked())["structured_outputs"]["structural_tag"])["format"]
    assert (tag["type"], tag["at_least_one"], tag["stop_after_first"]) == (
        "triggered_tags",
        False,
        False,
    )
    assert tag["tags"][0]["begin"] == '<call_tool>\n{"name": "weather", "arguments": '
    assert tag["tags"][0]["content"] == {"type": "json_schema", "json_schema": SCHEMA}
    forced = sampling_arguments(asked(choice="required", parallel=False))["structured_outputs"]
    tag = json.loads(forced["structural_tag"])["format"]
    assert (tag["at_least_one"], tag["stop_after_first"]) == (True, True)
    shaped = sampling_arguments(asked({"regex": "[0-9]"}))["structured_outputs"]["structural_tag"]
    assert json.loads(shaped)["format"]["elements"][1] == {"type": "regex", "pattern": "[0-9]"}


def test_a_server_gets_openais_parameters() -> None:
    body = http_fields("max_tokens", asked())
    assert body["tools"][0] == {"type": "function", "function": WEATHER}
    assert [name for name in body if name != "tools"] == []
    forced = http_fields("max_tokens", asked(choice="required", parallel=False))
    assert (forced["tool_choice"], forced["parallel_tool_calls"]) == ("required", False)
    named = Sampling(extra={"tool_use": {"tools": [WEATHER], "choice": "required", "parallel": False}})
    chosen = http_fields("max_tokens", named)
    assert chosen["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert "parallel_tool_calls" not in chosen


def test_a_server_is_told_what_the_client_says_of_strictness_and_of_single_calls() -> None:
    one = {"tools": [WEATHER | {"strict": True}], "parallel": False}
    form = {"json_schema": SCHEMA, "strict": False}
    body = http_fields("max_tokens", Sampling(extra={"tool_use": one, "structure": form}))
    assert body["tools"][0]["function"]["strict"] is True
    assert body["parallel_tool_calls"] is False
    assert body["response_format"]["json_schema"]["strict"] is False
    own = sampling_arguments(Sampling(extra={"structure": form}))["structured_outputs"]
    assert own == {"json": SCHEMA}


@pytest.mark.parametrize("schema", [{"properties": {}}, {"$ref": "#/$defs/A"}, {"type": None}], ids=str)
def test_arguments_are_an_object_also_where_their_schema_does_not_say_so(
    schema: dict[str, Any],
) -> None:
    assert Tool(name="f", parameters=schema).schema_of_arguments == schema | {"type": "object"}


def said(**delta: Any) -> bytes:
    finish = delta.pop("finish", None)
    return json.dumps({"choices": [{"delta": delta, "finish_reason": finish}]}).encode()


def piece(**fields: Any) -> dict[str, Any]:
    names = ("name", "arguments")
    function = {name: fields.pop(name) for name in names if name in fields}
    return fields | {"function": function}


@pytest.mark.parametrize(
    "chunks",
    [
        [  # as OpenAI
            said(tool_calls=[piece(index=0, id="c", type="function", name="weather", arguments="")]),
            said(tool_calls=[piece(index=0, arguments='{"a"')]),
            said(tool_calls=[piece(index=0, arguments=": 1}")]),
            said(finish="tool_calls"),
        ],
        [said(tool_calls=[piece(id="c", name="weather", arguments={"a": 1})], finish="stop")],
        [
            said(tool_calls=[piece(id="c", name="weather")]),
            said(tool_calls=[piece(arguments='{"a": 1}'), "odd", {"function": 3}]),
            said(finish="tool_calls"),
        ],
        [
            said(function_call={"name": "weather"}),
            said(function_call={"arguments": '{"a": 1}'}, finish="function_call"),
        ],
    ],
    ids=["openai", "whole", "no index", "older"],
)  # fmt: skip
def test_calls_of_servers_are_read_in_their_forms(chunks: list[bytes]) -> None:
    answer = StreamedAnswer()
    deltas = [answer.add(read_chunk(chunk), chunk) for chunk in chunks]
    calls = [call for delta in deltas for call in delta.tool_calls]
    assert calls[0].name == "weather"
    assert calls[0].id.startswith("c")
    assert json.loads("".join(call.arguments for call in calls)) == {"a": 1}
    assert deltas[-1].finish_reason == "tool_calls"


def test_two_calls_without_an_index_are_two() -> None:
    answer = StreamedAnswer()
    both = [piece(id="c1", name="f", arguments="{}"), piece(id="c2", name="g", arguments="{}")]
    chunk = said(tool_calls=both, finish="tool_calls")
    delta = answer.add(read_chunk(chunk), chunk)
    assert delta.tool_calls == (CallDelta(0, "c1", "f", "{}"), CallDelta(1, "c2", "g", "{}"))
