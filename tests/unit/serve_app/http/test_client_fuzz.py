"""Requests made from the types of the package `openai` and changed, to an app in this process.

The environment variable FUZZ_CASES sets how many.
"""

import os
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import httpx
import pytest
from openai.types.chat import ChatCompletionMessageParam
from openai.types.responses import ResponseInputItemParam
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from pydantic import TypeAdapter

from benchmarks.faults.client_bodies import CHAT, RESPONSES, Bodies, cases
from benchmarks.faults.client_fuzz import CASE_S, Found, Reply, check, fuzz, mend
from benchmarks.faults.client_types import Walker
from benchmarks.faults.mutations import mutate
from serve_app.http.api import create_api
from tests.unit.serve_app.conftest import Scripted, recipe

CASES = int(os.environ.get("FUZZ_CASES", "360"))


@pytest.fixture
async def found(scripted: Scripted) -> AsyncIterator[Found]:
    api = create_api(recipe(max_body_bytes=200_000), scripted)
    transport = httpx.ASGITransport(api, raise_app_exceptions=False)
    headers = {"content-type": "application/json"}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:

        async def send(path: str, body: bytes) -> Reply:
            response = await client.post(path, content=body, headers=headers)
            return Reply(response.status_code, response.headers["content-type"], response.content)

        yield await fuzz(cases(Bodies(5, ("mix", "writer")), CASES), send, 5)


@pytest.mark.timeout(60 + CASES // 5)
async def test_no_request_of_a_client_ends_in_a_defect(found: Found) -> None:
    assert found.failures == []
    assert found.slowest_s < CASE_S
    assert found.cases == CASES
    # Each refused body was answered in the end, without what the errors named.
    assert found.requests > 2 * CASES
    firsts = {(path, status) for path, _, status in found.statuses}
    assert firsts >= {(path, status) for path in (CHAT, RESPONSES) for status in (200, 400)}


@pytest.mark.parametrize(
    "kind",
    [ChatCompletionMessageParam, ResponseInputItemParam, ResponseCreateParamsNonStreaming],
    ids=["message", "item", "request"],
)
def test_what_is_drawn_is_what_the_type_allows(kind: Any) -> None:
    strict: TypeAdapter[Any] = TypeAdapter(kind)
    walker = Walker(Random(1))
    for _ in range(200):
        strict.validate_python(walker.value(kind))
    # It can fail: most values are none of the type any more once a few places have changed.
    random, refused = Random(2), 0
    for _ in range(200):
        drawn = {"value": walker.value(kind)}
        for _ in range(5):
            mutate(random, drawn)
        try:
            strict.validate_python(drawn.get("value"))
        except ValueError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500, "application/json", b'{"error":{}}'),
        Reply(400, "application/json", b'{"detail":"Not Found"}'),
        Reply(200, "application/json", b'{"id":"x","choices":[]}'),
        Reply(200, "text/event-stream", b'data: {"id":"x"}\n\ndata: [DONE]\n\n'),
        Reply(200, "text/event-stream", b"data: [DONE]\n"),
    ],
    ids=["500", "another error", "no choice", "no chunk", "no end"],
)
def test_a_reply_that_is_no_good_is_noticed(reply: Reply) -> None:
    with pytest.raises((AssertionError, ValueError, IndexError)):
        check(CHAT, reply)


def test_an_error_that_names_what_was_not_sent_is_noticed() -> None:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], "a.b": {"c": [1]}}
    mend(body, "messages.0.content")
    mend(body, "a.b.c.0")
    assert body == {"messages": [{"role": "user"}], "a.b": {"c": []}}
    with pytest.raises(AssertionError, match="was not sent"):
        mend(body, "temperature")
