"""The ID of a request: in the header, in every error, and in every log line of the request's tasks."""

import json
import logging
import re

import httpx
import pytest

from cluster.logs.line import Formatter
from configs.errors import EngineError
from serve_app.access.api_keys import Key
from serve_app.http.api import create_api
from serve_app.http.listener import Listener
from tests.unit.serve_app.conftest import CHAT, MIXTURE, Exchange, Puppets, recipe

ID = [(b"content-type", b"application/json"), (b"x-request-id", b"req-7")]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (CHAT, {"model": "none", "messages": []}, 400),
        (CHAT, MIXTURE | {"model": "none"}, 404),
        ("/v1/responses", {"model": "mix"}, 400),
        ("/v1/nothing", {}, 404),
        ("/v1/models", {}, 405),
    ],
)
async def test_every_refusal_has_the_id(path: str, body: dict[str, object], status: int) -> None:
    answer = Exchange(create_api(recipe(), Puppets()), body, path=path, headers=ID)
    assert (await answer.start())["status"] == status
    assert (await answer.whole())["error"]["request_id"] == "req-7"


async def test_a_request_without_a_key_has_the_id() -> None:
    api = create_api(recipe(), Puppets(), [Key("env", b"\0" * 32)])
    answer = Exchange(api, MIXTURE, headers=ID)
    assert (await answer.start())["status"] == 401
    assert (await answer.whole())["error"]["request_id"] == "req-7"


@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
async def test_a_stream_that_fails_ends_with_the_id(puppets: Puppets, path: str) -> None:
    body = MIXTURE if path == CHAT else {"model": "mix", "input": "hello"}
    api = create_api(recipe(), puppets)
    answer = Exchange(api, body | {"stream": True}, path=path, headers=ID)
    for model in ("one", "two"):
        (await puppets.call(model)).fail(EngineError("it broke", model=model))
    await answer.app
    sent = b"".join([(await answer._sent.get()).get("body", b"") for _ in range(answer._sent.qsize())])
    assert b'"request_id": "req-7"' in sent or b'"request_id":"req-7"' in sent


async def test_an_id_of_the_client_that_is_not_plain_is_replaced() -> None:
    sent = [ID[0], (b"x-request-id", b'a" level=ERROR')]
    answer = Exchange(create_api(recipe(), Puppets()), MIXTURE | {"model": "none"}, headers=sent)
    await answer.start()
    assert re.fullmatch("[0-9a-f]{32}", (await answer.whole())["error"]["request_id"])


async def test_a_defect_has_the_id_in_the_error_and_in_the_log(
    puppets: Puppets, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(caplog.handler, "formatter", Formatter("json", "ingress"))
    answer = Exchange(create_api(recipe(), puppets), MIXTURE, headers=ID)
    (await puppets.call("one")).fail(ZeroDivisionError("a prompt"))
    await puppets.answer("two")
    await puppets.answer("writer")
    await answer.start()
    lines = [line for line in caplog.text.splitlines() if line.startswith("{")]
    told = [json.loads(line) for line in lines]
    assert {each["request"] for each in told if each["from"].startswith("serve_app")} == {"req-7"}
    assert told


async def test_errors_of_the_listener_have_the_id_of_their_header() -> None:
    listener = Listener(create_api(recipe(), Puppets()), "127.0.0.1", 0)
    await listener.start()
    url = f"http://127.0.0.1:{listener.port}/v1/models"
    async with httpx.AsyncClient() as client:
        answer = await client.get(url, headers={"x": "y" * 200_000})
    await listener.stop(0)
    assert answer.status_code == 431
    assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]


async def test_tasks_of_one_request_do_not_see_the_id_of_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    for number in range(2):
        sent = [ID[0], (b"x-request-id", f"req-{number}".encode())]
        answer = Exchange(create_api(recipe(), Puppets()), {"model": "none"}, headers=sent)
        await answer.start()
        assert (await answer.whole())["error"]["request_id"] == f"req-{number}"
