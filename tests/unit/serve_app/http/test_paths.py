"""Paths and methods that are none of the API's, and other spellings of those that are."""

import asyncio
import hashlib

import httpx
import pytest

from serve_app.access.api_keys import Key, generate_key
from serve_app.http.api import create_api
from tests.unit.serve_app.conftest import CHAT, MIXTURE, Scripted, listening, recipe
from tests.wire import attempt, head


def message(response: httpx.Response) -> str:
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_request")
    text: str = error["message"]
    return text


@pytest.mark.parametrize(
    ("method", "path", "says"),
    [
        ("POST", "/chat/completions", "the base URL of this OpenAI-compatible API ends with /v1"),
        ("GET", "/v1", "the base URL of this OpenAI-compatible API ends with /v1"),
        ("GET", "/", "POST /v1/chat/completions, GET /v1/models"),
        ("POST", "/v1/v1/chat/completions", "ends with /v1"),
        ("GET", "/models", "ends with /v1"),
        ("POST", "/api/chat", "this is not Ollama's API but OpenAI's"),
        ("GET", "/api/tags", "this is not Ollama's API but OpenAI's"),
        ("POST", "/v1/messages", "this is not Anthropic's API but OpenAI's"),
        ("POST", "/v1/completions", "there are no text completions here"),
        ("POST", "/v1/embeddings", "there are no embeddings here"),
        ("POST", "/api/embed", "there are no embeddings here"),
        ("POST", "/v1/rerank", "there is no reranking here"),
        ("POST", "/v1/audio/transcriptions", "text only"),
        ("POST", "/v1/images/generations", "text only"),
        ("GET", "/v1/responses/resp_1", "keeps no answers"),
        ("DELETE", "/v1/responses/resp_1", "keeps no answers"),
        ("POST", "/v1/conversations", "keeps no answers"),
        ("GET", "/v1/chat/completions/chatcmpl-1", "keeps no answers"),
        ("GET", "/v1/files", "POST /v1/chat/completions"),
    ],
)
async def test_a_wrong_path_tells_where_the_api_is(
    http: httpx.AsyncClient, method: str, path: str, says: str
) -> None:
    response = await http.request(method, path, json={} if method == "POST" else None)
    assert response.status_code == 404
    assert message(response).startswith(f"{method} {path}: ")
    assert says in message(response)
    assert "/v1/chat/completions" in message(response) or "whole conversation" in message(response)


@pytest.mark.parametrize("path", ["//v1/chat/completions", "/v1//chat/completions/", f"{CHAT}/"])
async def test_slashes_too_many_do_not_matter(http: httpx.AsyncClient, path: str) -> None:
    response = await http.request("POST", httpx.URL(f"http://localhost{path}"), json=MIXTURE)
    assert response.status_code == 200


async def test_slashes_open_no_path_without_a_key(scripted: Scripted) -> None:
    key = Key("alice", hashlib.sha256(generate_key().encode()).digest())
    transport = httpx.ASGITransport(create_api(recipe(), scripted, [key]))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("http://localhost//healthz")).status_code == 401
        assert (await client.get("http://localhost/healthz/")).status_code == 401
        assert (await client.get("http://localhost/health")).status_code == 401
        assert (await client.get("http://localhost/healthz")).status_code == 200
        assert (await client.head("http://localhost/healthz")).status_code == 200
        assert (await client.head("http://localhost/v1/models")).status_code == 401


@pytest.mark.parametrize("path", ["/health", "/v1/health", "/health/ready", "/ping"])
async def test_other_servers_names_of_readiness_are_ours(http: httpx.AsyncClient, path: str) -> None:
    asked = await http.get(path)
    assert (asked.status_code, asked.json()) == (200, (await http.get("/readyz")).json())
    assert asked.json()["ready"] is True
    assert (await http.post(path)).status_code == 405


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/v1/models", "/v1/models/one", "/openapi.json"]
)
async def test_head_is_get_without_the_body(http: httpx.AsyncClient, path: str) -> None:
    got, headed = await http.get(path), await http.head(path)
    assert (headed.status_code, headed.content) == (got.status_code, b"")
    assert headed.headers["content-length"] == str(len(got.content))
    assert headed.headers["content-type"] == got.headers["content-type"]


async def test_head_over_the_wire_leaves_the_connection_in_order(scripted: Scripted) -> None:
    sent = head(method="HEAD") + head("Connection: close", path="/healthz")
    async with listening(create_api(recipe(), scripted)) as url:
        assert await asyncio.to_thread(attempt, url, sent) == [200, 200]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", CHAT, "POST"),
        ("HEAD", CHAT, "POST"),
        ("PUT", CHAT, "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", "/v1/models/one", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_refused_with_those_of_the_path(
    http: httpx.AsyncClient, method: str, path: str, allow: str
) -> None:
    response = await http.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allow)
    if method != "HEAD":
        assert message(response).endswith(f"the path has {allow}")


@pytest.mark.parametrize(("path", "allow"), [(CHAT, "POST"), ("/v1/models", "GET, HEAD")])
async def test_options_tells_the_methods(http: httpx.AsyncClient, path: str, allow: str) -> None:
    response = await http.options(path)
    assert (response.status_code, response.headers["allow"], response.content) == (204, allow, b"")
