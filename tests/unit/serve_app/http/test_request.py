"""Bytes -> ChatRequest: what is accepted, what reaches the models, and that all else is refused."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessage
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)

from configs.errors import BadRequest
from configs.schema import Sampling
from serve_app.http.asked_sampling import change_sampling
from serve_app.http.parameters import IGNORED, TOOL_LISTS, TOOL_SWITCHES, UNSUPPORTED
from serve_app.http.request import ChatRequest, parse
from tests.unit.serve_app.conftest import HELLO, MIXTURE

OPENAI_PARAMETERS = sorted(
    CompletionCreateParamsNonStreaming.__annotations__ | CompletionCreateParamsStreaming.__annotations__
)
BASE = Sampling(temperature=0.3, top_p=0.8, max_tokens=77, stop=("END",), seed=5)

some = settings(max_examples=60, deadline=None)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def request(**fields: Any) -> ChatRequest:
    return parse(json.dumps(MIXTURE | fields).encode())


def outcome(body: bytes) -> str:
    """`read` or `refused`. Any other error is raised, and fails the test."""
    try:
        change_sampling(BASE, parse(body))
    except BadRequest:
        return "refused"
    return "read"


@pytest.mark.parametrize("name", OPENAI_PARAMETERS)
def test_every_parameter_of_the_openai_client_is_honoured_ignored_or_refused_by_name(name: str) -> None:
    if name in UNSUPPORTED:
        with pytest.raises(
            BadRequest, match=rf"'{name}' is not supported here; leave it out"
        ) as refusal:
            request(**{name: {"something": "else"}})
        assert refusal.value.param == name
    else:
        assert name in {*IGNORED, *TOOL_LISTS, *TOOL_SWITCHES} or name in ChatRequest.model_fields


@pytest.mark.parametrize(
    "fields",
    [
        *({name: value} for name, harmless in UNSUPPORTED.items() for value in harmless),
        *({name: {"any": ["value"]}} for name in sorted(IGNORED)),
        *({name: []} for name in sorted(TOOL_LISTS)),
        *({name: None} for name in OPENAI_PARAMETERS if name not in ("messages", "model")),
    ],
    ids=str,
)
def test_what_changes_nothing_is_taken(fields: dict[str, Any]) -> None:
    assert request(**fields) == request()


@pytest.mark.parametrize("value", [True, 1.0, "1", 2])
def test_n_can_only_be_the_number_one(value: object) -> None:
    with pytest.raises(BadRequest, match="'n' is not supported here; leave it out or send 1"):
        request(n=value)


@pytest.mark.parametrize(
    ("fields", "changed"),
    [
        ({}, {}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"max_tokens": 9}, {"max_tokens": 9}),
        ({"max_completion_tokens": 9}, {"max_tokens": 9}),
        ({"max_tokens": 9, "max_completion_tokens": 9}, {"max_tokens": 9}),
        ({"stop": "a"}, {"stop": ("a",)}),
        ({"stop": ["a", "b"]}, {"stop": ("a", "b")}),
        ({"stop": []}, {"stop": ()}),
        ({"seed": 0}, {"seed": 0}),
        ({"seed": -(2**63)}, {"seed": -(2**63)}),
        ({"presence_penalty": -2}, {"presence_penalty": -2.0}),
        ({"frequency_penalty": 1.5}, {"frequency_penalty": 1.5}),
        ({"logprobs": True}, {"top_logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 20}, {"top_logprobs": 20}),
        ({"logprobs": False}, {}),
    ],
    ids=str,
)
def test_sampling_is_the_recipes_with_what_the_request_says(
    fields: dict[str, Any], changed: dict[str, Any]
) -> None:
    assert change_sampling(BASE, request(**fields)) == BASE.model_copy(update=changed)


@pytest.mark.parametrize(
    ("message", "read"),
    [
        ({"role": "developer", "content": "x"}, {"role": "system", "content": "x"}),
        ({"role": "user", "content": "x", "name": "Ann"}, {"role": "user", "content": "x"}),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": "ab"},
        ),
        (
            ChatCompletionMessage(role="assistant", content="x").model_dump(),
            {"role": "assistant", "content": "x"},
        ),
        (
            {"role": "assistant", "content": "x", "reasoning_content": "hm"},
            {"role": "assistant", "content": "x"},
        ),
        ({"role": "user", "content": "a\0b\ud83d\ude00"}, {"role": "user", "content": "a\0b😀"}),
    ],
    ids=["developer", "name", "text parts", "reply sent back", "reasoning sent back", "NUL and emoji"],
)
def test_messages_are_read_as_roles_and_plain_text(
    message: dict[str, Any], read: dict[str, str]
) -> None:
    assert request(messages=[message, *HELLO]).conversation() == [read, *HELLO]


@some
@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_can_do_more_than_be_refused(body: bytes) -> None:
    assert outcome(body) == "refused"


@some
@given(
    json_values | st.dictionaries(st.sampled_from([*ChatRequest.model_fields, "tools"]), json_values)
)
def test_no_json_can_do_more_than_be_refused(value: object) -> None:
    assert outcome(json.dumps(value).encode()) == "refused"  # no model and messages come by chance


@some
@given(
    st.dictionaries(st.sampled_from([n for n in ChatRequest.model_fields if n != "model"]), json_values)
)
def test_no_field_can_do_more_than_be_refused(fields: dict[str, Any]) -> None:
    outcome(json.dumps(MIXTURE | fields).encode())


@pytest.mark.parametrize("inside", ["%s", '{"messages": %s}', '{"tools": %s}', '{"zzz": %s}'])
@pytest.mark.parametrize(("opening", "closing"), ["[]", ('{"a":', "}")], ids=["arrays", "objects"])
def test_no_depth_can_do_more_than_be_refused(inside: str, opening: str, closing: str) -> None:
    depths = [1, 50, *range(180, 230), *range(900, 1010), 100_000]
    bodies = [inside % (opening * n + "1" + closing * n) for n in depths]
    assert {outcome(body.encode()) for body in bodies} == {"refused"}


@pytest.mark.parametrize(
    ("fields", "template", "thinking_tokens"),
    [
        ({}, {"enable_thinking": True, "x": 1}, 9),
        (
            {"chat_template_kwargs": {"enable_thinking": False}},
            {"enable_thinking": False, "x": 1},
            9,
        ),
        ({"reasoning_effort": "none"}, {"enable_thinking": False, "thinking": False, "x": 1}, 9),
        (
            {"reasoning_effort": "high"},
            {"enable_thinking": True, "thinking": True, "reasoning_effort": "high", "x": 1},
            9,
        ),
        (
            {"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "max"}},
            {"enable_thinking": True, "thinking": True, "reasoning_effort": "max", "x": 1},
            9,
        ),
        ({"thinking_token_budget": 0}, {"enable_thinking": True, "x": 1}, 0),
    ],
)
def test_a_request_decides_how_the_answering_model_thinks(
    fields: dict[str, Any], template: dict[str, Any], thinking_tokens: int
) -> None:
    base = Sampling(template={"enable_thinking": True, "x": 1}, thinking_tokens=9, max_tokens=5)
    sampling = change_sampling(base, request(**fields))
    assert sampling.template_arguments == template
    assert (sampling.thinking_tokens, sampling.most_tokens) == (thinking_tokens, 5 + thinking_tokens)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"chat_template_kwargs": {"messages": []}}, "'messages' is set by the engine"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "'chat_template' is set by the engine"),
        ({"chat_template_kwargs": {"enable_thinking": "no"}}, "has to be true or false, not 'no'"),
        ({"chat_template_kwargs": {"a b": 1}}, "'a b' is no name of an argument"),
        ({"chat_template_kwargs": {f"a{n}": n for n in range(33)}}, "takes 32 at most"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs"),
        ({"reasoning_effort": "a lot"}, "reasoning_effort: Input should be 'none'"),
        ({"thinking_token_budget": -1}, "thinking_token_budget"),
        ({"thinking_token_budget": 2.5}, "thinking_token_budget"),
    ],
)
def test_wrong_settings_of_thinking_are_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(BadRequest, match=named) as refusal:
        change_sampling(Sampling(), request(**fields))
    assert refusal.value.param == next(iter(fields))
