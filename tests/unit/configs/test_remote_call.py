"""What a recipe may add to the calls of a server, and that it never holds a key."""

from typing import Any

import pytest
from pydantic import ValidationError

from configs.schema import OpenAIHttpModel


def model(**settings: Any) -> OpenAIHttpModel:
    return OpenAIHttpModel.model_validate(
        {"engine": "openai_http", "base_url": "http://x/v1", "model": "m"} | settings
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"headers": {"HTTP-Referer": "https://example.org", "X-Title": "a b"}},
        {"headers": {"api-key": "${AZURE_KEY}", "Authorization": "Token ${MY_KEY}"}},
        {"extra_body": {"provider": {"order": ["a"]}, "prompt_cache_key": "chat-7", "tokenizer": "x"}},
        {"extra_body": {"top_a": 0.1, "thinking": {"type": "disabled"}, "x": None, "y": [1, True]}},
        {"omit": ["stream_options", "temperature", "max_tokens", "stream", "model"]},
    ],
    ids=range(5),
)
def test_what_only_this_server_knows_may_stand_in_a_recipe(settings: dict[str, Any]) -> None:
    assert model(**settings).model_dump()[next(iter(settings))]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"headers": {"Authorization": "Bearer abc"}}, "looks like a key"),
        ({"headers": {"api-key": "0123456789"}}, "looks like a key"),
        ({"headers": {"X-Auth-Token": "x"}}, "looks like a key"),
        ({"headers": {"Cookie": "x"}}, "looks like a key"),
        ({"headers": {"X-Note": "sk-proj0123456789abcdef"}}, "looks like a key"),
        ({"headers": {"X-Note": "Bearer x"}}, "looks like a key"),
        ({"headers": {"Authorization": "Bearer sk-0123456789abcd ${X}"}}, "looks like a key"),
        ({"headers": {"Content-Length": "3"}}, "set by the HTTP client"),
        ({"headers": {"host": "x"}}, "set by the HTTP client"),
        ({"headers": {"a": "b\r\nc: d"}}, "a character that no header may have"),
        ({"headers": {"a": "\u4f60"}}, "a character that no header may have"),
        ({"headers": {"a": "b", "A": "c"}}, "stands there twice"),
        ({"headers": {"a b": "c"}}, "pattern"),
        ({"headers": {"a": 3}}, "string"),
        ({"headers": {"Authorization": "${X}"}, "api_key_env": "Y"}, "leave one of the two out"),
        ({"extra_body": {"messages": []}}, "'messages' cannot stand here"),
        ({"extra_body": {"max_tokens": 3}}, "use max_tokens in `sampling`"),
        ({"extra_body": {"n": 2}}, "samples"),
        ({"extra_body": {"api_key": "x"}}, "looks like a key"),
        ({"extra_body": {"a": {"b": "sk-proj0123456789abcdef"}}}, "looks like a key"),
        ({"extra_body": {"a": float("nan")}}, "has to be JSON"),
        ({"extra_body": {"a": {1, 2}}}, "has to be JSON"),
        ({"omit": ["messages"]}, "cannot be left out"),
        ({"omit": ["a b"]}, "pattern"),
        ({"omit": "temperature"}, "tuple"),
    ],
    ids=range(25),
)
def test_a_mistake_is_named_and_no_key_is_repeated(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as failure:
        model(**settings)
    (error,) = failure.value.errors()
    assert said in error["msg"] + error["type"]
    assert "sk-" not in error["msg"]
