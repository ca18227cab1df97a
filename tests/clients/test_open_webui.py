"""What Open WebUI sends to an OpenAI-compatible server, and how it reads the answers.

The bodies follow its backend: `generate_chat_completion` in routers/openai.py posts what
`process_chat_payload` in utils/middleware.py leaves, without `metadata`; the titles' come from
routers/tasks.py. Answers are read as there: line by line through aiohttp, which takes at most 128 KiB a
line, `data:` stripped, and a chunk without choices looked at for usage or an error.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.clients.conftest import KEY, MODELS
from tests.conftest import Endpoint

HEADERS = {
    "Authorization": f"Bearer {KEY}",
    "Content-Type": "application/json",
    "X-OpenWebUI-User-Name": "Ada%20Lovelace",
    "X-OpenWebUI-User-Role": "admin",
}
# Built-in tools go with every question of the web page, unless its function calling is set to legacy.
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_current_timestamp",
            "description": "Get the current Unix timestamp in seconds.",
            "parameters": {"type": "object", "properties": {}, "required": []},
        },
    }
]
CHAT: dict[str, Any] = {
    "stream": True,
    "model": "mix",
    "messages": [
        {"role": "system", "content": "User Context:\n\n"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "and now?"},
    ],
    "tools": TOOLS,
}
PARAMETERS = {
    "temperature": 0.5,
    "top_p": 0.9,
    "max_tokens": 12,
    "seed": 7,
    "stop": ["\n\n\n"],
    "frequency_penalty": 0.1,
    "presence_penalty": 0.1,
    "stream_options": {"include_usage": True},
}
TITLE: dict[str, Any] = {
    "model": "mix",
    "messages": [
        {
            "role": "user",
            "content": "### Task:\nGenerate a concise title summarizing the chat history.\n### Output:\n"
            'JSON format: { "title": "your concise title here" }\n### Chat History:\n<chat_history>\n'
            "USER: hello\nASSISTANT: hi\n</chat_history>",
        }
    ],
    "stream": False,
    "max_tokens": 1000,
}


@pytest.fixture
async def webui(endpoint: Endpoint) -> AsyncIterator[aiohttp.ClientSession]:
    """Open WebUI's session with the server."""
    async with aiohttp.ClientSession(endpoint.base_url, headers=HEADERS) as session:
        yield session


async def chat(webui: aiohttp.ClientSession, body: dict[str, Any]) -> dict[str, Any]:
    """A stream as Open WebUI reads it."""
    async with webui.post("/v1/chat/completions", data=json.dumps(body)) as response:
        assert response.status == 200, await response.text()
        assert "text/event-stream" in response.headers["Content-Type"]
        seen: dict[str, Any] = {"text": "", "thought": "", "usage": None, "errors": [], "moa": None}
        async for line in response.content:
            if line.startswith(b"data:") and (data := line[5:].strip()) != b"[DONE]":
                _take(json.loads(data), seen)
    return seen


def _take(chunk: dict[str, Any], seen: dict[str, Any]) -> None:
    seen["usage"] = chunk.get("usage") or seen["usage"]
    seen["moa"] = chunk.get("moa") or seen["moa"]
    if not chunk.get("choices"):
        seen["errors"] += [chunk["error"]] if "error" in chunk else []
        return
    delta = chunk["choices"][0]["delta"]
    seen["text"] += delta.get("content") or ""
    seen["thought"] += delta.get("reasoning_content") or delta.get("reasoning") or ""


async def test_the_models_are_listed(webui: aiohttp.ClientSession) -> None:
    async with webui.get("/v1/models") as response:
        listed = await response.json()
    assert [model["id"] for model in listed["data"]] == ["mix", *MODELS]
    assert all({"id", "object", "owned_by"} <= set(model) for model in listed["data"])


async def test_a_chat_with_its_built_in_tools_is_answered(webui: aiohttp.ClientSession) -> None:
    seen = await chat(webui, CHAT)
    assert len(seen["text"].split()) == 20
    assert seen["thought"].count("(proposal ") == 3
    assert seen["errors"] == []
    assert seen["moa"]["ignored"] == ["tools"]


async def test_a_chat_with_every_parameter_of_its_settings_is_answered(
    webui: aiohttp.ClientSession,
) -> None:
    seen = await chat(webui, CHAT | PARAMETERS)
    assert len(seen["text"].split()) == 12
    assert seen["usage"]["completion_tokens"] == 12
    assert seen["usage"]["all_calls"]["completion_tokens"] == 8 + 8 + 8 + 12
    assert all(isinstance(seen["usage"][n], int) for n in ("prompt_tokens", "total_tokens"))


async def test_a_title_is_made_by_one_model(webui: aiohttp.ClientSession) -> None:
    async with webui.post("/v1/chat/completions", data=json.dumps(TITLE)) as response:
        answer = await response.json()
    assert answer["moa"]["routed"]["task"] == "title"
    assert [row["model"] for row in answer["usage"]["by_model"]] == ["writer"]
    assert len(answer["choices"][0]["message"]["content"].split()) == 20


async def test_an_error_can_be_shown(webui: aiohttp.ClientSession) -> None:
    async with webui.post(
        "/v1/chat/completions", data=json.dumps(CHAT | {"model": "broken"})
    ) as response:
        assert response.status == 502
        answer = await response.json()
    assert "the script says that this call fails" in answer["error"]["message"]
