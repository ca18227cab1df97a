"""Valid and invalid requests, made from the API's own description, to an app in this process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import schemathesis
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from benchmarks.faults.fuzz import CASE_S, CHAT, Outcome, fuzz
from serve_app.http.api import create_api
from tests.unit.serve_app.conftest import Scripted, recipe

POST = f"POST {CHAT}"


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    models = Scripted(recipe())

    @asynccontextmanager
    async def started(_: FastAPI) -> AsyncIterator[None]:
        await models.start()
        yield

    api = create_api(recipe(), models)
    api.router.lifespan_context = started

    async def from_here(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":  # without keys, nobody else is served
            here, rest = ("127.0.0.1", 8000), [h for h in scope["headers"] if h[0] != b"host"]
            scope = {
                **scope,
                "client": here,
                "server": here,
                "headers": [(b"host", b"localhost"), *rest],
            }
        await api(scope, receive, send)

    return fuzz(schemathesis.openapi.from_asgi("/openapi.json", from_here), cases=200, seed=5)


def test_no_case_fails(outcome: Outcome) -> None:
    assert outcome.failures == []
    assert outcome.slowest_s < CASE_S
    assert outcome.cases > 160


def test_the_description_is_good_enough_to_reach_the_models(outcome: Outcome) -> None:
    mended = {status: n for (_, kind, status), n in outcome.statuses.items() if kind == "mended"}
    assert mended[200] > sum(mended.values()) / 2
    assert outcome.statuses[POST, "forbidden", 200] == 0
    assert outcome.statuses[POST, "forbidden", 400] > 40
