"""The log's lines about requests, and what `slimmoa status` says of the same: one trouble at a time."""

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from actors.keeper.card_keeper import StepTimes
from actors.keeper.card_report import CardReport, card_report
from actors.keeper.kept_card import KeptCard
from cli.status_troubles import troubles
from cli.status_view import status_text
from cluster.logs.limit import WINDOW_S
from cluster.residency.messages import Snapshot
from cluster.residency.state import Member, QueueCounts, Slot, State
from configs.access import Allowance
from configs.errors import EngineError, EngineUnavailable, ServerUnreachable
from configs.schema import Recipe
from serve_app.access.api_keys import Key
from serve_app.http.api import create_api
from serve_app.log_lines import LogLines
from tests.unit.serve_app.conftest import CHAT, MIXTURE, Exchange, Puppets, Scripted, recipe

pytestmark = pytest.mark.virtual_time

ALICE = Key("alice", b"\1" * 32, is_operator=True)
PROMPT = "SECRET words of a person"
BODY: dict[str, Any] = {"model": "mix", "messages": [{"role": "user", "content": PROMPT}]}


class Server:
    """An API that logs, and an operator who looks at its log and its state."""

    def __init__(self, models: Any, mixture: Recipe | None = None, **more: Any) -> None:
        mixture = mixture or recipe()
        self.api = create_api(mixture, models, observers=[LogLines(mixture)], **more)
        transport = httpx.ASGITransport(self.api, raise_app_exceptions=False)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    async def ask(self, key: str = "none", **fields: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}", "x-request-id": "req-7"}
        return await self._http.post(CHAT, json=BODY | fields, headers=headers)

    async def troubles(self, key: str = "none") -> list[str]:
        headers = {"authorization": f"Bearer {key}"}
        state = (await self._http.get("/v1/state", headers=headers)).json()
        assert PROMPT not in str(state)
        assert status_text(state, "http://localhost/v1", state["at"])
        return troubles(state, state["at"])


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "serve_app.log_lines")
    return caplog


def fields(message: str) -> dict[str, str]:
    """The plain fields of a line, without those that have quotes."""
    return dict(part.split("=", 1) for part in message.split() if "=" in part)


async def scripted(mixture: Recipe) -> Scripted:
    models = Scripted(mixture)
    await models.start()
    return models


async def test_an_answer_is_one_line_with_its_times_and_tokens(log: pytest.LogCaptureFixture) -> None:
    slow = recipe().model_copy(deep=True)
    models = slow.model_dump(exclude_unset=True)
    models["models"]["two"] |= {"first_token_s": 2.0}
    models["models"]["writer"] |= {"first_token_s": 0.5, "token_s": 0.1}
    mixture = Recipe.model_validate(models)
    answer = await Server(await scripted(mixture), mixture).ask()
    assert answer.status_code == 200
    (record,) = log.records
    message = record.getMessage()
    assert record.levelname == "INFO"
    assert message.startswith("answer request=req-7 key=anyone model=mix stream=false outcome=ok")
    assert 'stages="layer 1:2,aggregator:1"' in message
    said = fields(message)
    assert (said["seconds"], said["first_s"], said["calls"], said["by"]) == ("3", "2.5", "3", "writer")
    used = answer.json()["usage"]["all_calls"]
    assert int(said["tokens_in"]) == used["prompt_tokens"]
    assert int(said["tokens_out"]) == used["completion_tokens"]
    assert PROMPT not in message


async def test_a_client_that_leaves_is_one_line(log: pytest.LogCaptureFixture) -> None:
    puppets = Puppets()
    server = Server(puppets)
    answer = Exchange(server.api, MIXTURE)
    call = await puppets.call("one")
    answer.leave()
    await answer.app
    await call.closed.wait()
    (message,) = log.messages
    assert fields(message)["outcome"] == "left"
    assert "tokens_out=0" in message


async def test_an_answer_that_fails_is_a_warning_without_the_words_of_others(
    log: pytest.LogCaptureFixture,
) -> None:
    puppets = Puppets()
    server = Server(puppets)
    asked = asyncio.create_task(server.ask())
    for model in ("one", "two"):
        (await puppets.call(model)).fail(EngineError(f"the server says: {PROMPT}", model=model))
    assert (await asked).status_code == 503
    (record,) = log.records
    message = record.getMessage()
    assert record.levelname == "WARNING"
    assert "outcome=failed" in message
    assert "status=503 code=quorum_not_met" in message
    assert "missing=one:engine_error,two:engine_error" in message
    assert PROMPT not in message
    assert await server.troubles() == []  # once is no trouble yet


class Restarting(Puppets):
    """Models whose replicas are back at once after they are lost."""

    async def is_alive(self, _model: str) -> bool:
        return True


async def test_a_retry_and_a_fallback_are_in_the_line(log: pytest.LogCaptureFixture) -> None:
    mixture = recipe().model_dump(exclude_unset=True)
    mixture["aggregator"]["fallbacks"] = ["one"]
    puppets = Restarting()
    server = Server(puppets, Recipe.model_validate(mixture))
    asked = asyncio.create_task(server.ask())
    await puppets.answer("one")
    (await puppets.call("two")).fail(EngineUnavailable("it is gone", model="two"))
    await puppets.answer("two")
    (await puppets.call("writer")).fail(EngineError("broken", model="writer"))
    await puppets.answer("one")
    assert (await asked).status_code == 200
    (message,) = log.messages
    said = fields(message)
    assert (said["outcome"], said["fallback"], said["by"]) == ("degraded", "aggregator", "one")
    assert (said["missing"], said["retried"]) == ("writer:engine_error", "two")


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "level"),
    [
        ("POST", "/v1/embeddings", 404, "invalid_request", "INFO"),
        ("DELETE", CHAT, 405, "invalid_request", "INFO"),
        ("GET", "/" + "x\n" * 500, 404, "invalid_request", "INFO"),
    ],
    ids=["embeddings", "method", "long"],
)
async def test_a_refusal_is_one_line(
    method: str, path: str, status: int, code: str, level: str, log: pytest.LogCaptureFixture
) -> None:
    answer = Exchange(Server(Puppets()).api, {}, method=method, path=path)
    assert (await answer.start())["status"] == status
    (record,) = log.records
    message = record.getMessage()
    assert record.levelname == level
    said = fields(message)
    assert (said["key"], said["method"], said["status"], said["code"]) == (
        "anyone",
        method,
        str(status),
        code,
    )
    assert len(message) < 400
    assert message.isprintable()


async def test_a_flood_of_refusals_is_a_few_lines_and_a_count(log: pytest.LogCaptureFixture) -> None:
    server = Server(Puppets(), env_keys=[ALICE])
    for _ in range(200):
        assert (await server.ask(key="wrong")).status_code == 401
    assert len(log.records) == 5
    assert all("code=invalid_api_key" in message for message in log.messages)
    assert "wrong" not in log.text
    log.clear()
    await asyncio.sleep(2 * WINDOW_S)
    (message,) = log.messages
    assert message == f"refused code=invalid_api_key more=195 within_s={WINDOW_S:g}"


# The five troubles that an operator has to be able to name from the log and the status alone.


async def test_a_model_that_never_wakes_is_named() -> None:
    card = KeptCard("slimmoa", "n1", (0,), (Slot("0", (Member("big/0"), Member("small/0"))),))
    waits = QueueCounts(waiting=4, first_arrival_at=-44.0)

    async def watch() -> Sequence[CardReport]:
        found = {"big/0": Snapshot(State.WAKING, calls=waits), "small/0": Snapshot(State.ASLEEP)}
        times = {"big/0": StepTimes(45.0, 3.0, 3.1), "small/0": StepTimes(45.5, None, 0.5)}
        return [card_report(card, found, {}, {}, times)]

    first, second = await Server(Puppets(), watch=watch).troubles()
    assert first.startswith("big/0 is waking for 45 s, as a rule 3.0 s; 4 calls wait for it")
    assert second == "big/0: 4 calls wait for it, the oldest for 44 s; its turn is closed"


async def test_a_proposer_that_is_always_late_is_named(log: pytest.LogCaptureFixture) -> None:
    mixture = recipe(quorum=1, grace_s=1).model_dump(exclude_unset=True)
    mixture["models"]["two"] |= {"first_token_s": 30.0}
    late = Recipe.model_validate(mixture)
    server = Server(await scripted(late), late)
    for _ in range(4):
        assert (await server.ask()).status_code == 200
    assert [fields(message)["missing"] for message in log.messages] == ["two:late"] * 4
    assert [fields(message)["outcome"] for message in log.messages] == ["degraded"] * 4
    (trouble,) = await server.troubles()
    assert trouble.startswith(
        "two is left out of answers, late in 4 of its 4 calls in the last minute; it"
    )


async def test_a_key_over_its_limit_is_named(log: pytest.LogCaptureFixture) -> None:
    secret = "sk-slimmoa-bob"
    digest = digest_of(secret)
    bob = Key("bob", digest, Allowance(requests_per_minute=1))
    server = Server(await scripted(recipe()), env_keys=[ALICE, bob])
    statuses = [(await server.ask(key=secret)).status_code for _ in range(3)]
    assert statuses == [200, 429, 429]
    refused = log.records[1]
    assert refused.levelname == "INFO"  # for the owner of the key
    message = refused.getMessage()
    assert "key=bob" in message
    assert "code=rate_limit_exceeded retry_after_s=60" in message
    assert "requests_per_minute is 1 here; try again in 60 s" in message
    (trouble,) = await server.troubles(key=secret)
    assert trouble.startswith("2 requests in the last minute were over the limits of their keys")
    assert "key 'bob': requests_per_minute is 1 here" in trouble


async def test_a_full_queue_is_named(log: pytest.LogCaptureFixture) -> None:
    mixture = recipe(queue=0).model_dump(exclude_unset=True)
    mixture["models"]["two"] |= {"concurrency": 1}
    puppets = Puppets()
    server = Server(puppets, Recipe.model_validate(mixture))
    first = asyncio.create_task(server.ask())
    call = await puppets.call("two")
    assert (await server.ask()).status_code == 429
    (record,) = log.records
    assert record.levelname == "WARNING"  # the operator has to act
    assert "code=overloaded model=two" in record.getMessage()
    assert "1 of 1 are taken" in record.getMessage()
    full, refused = await server.troubles()
    assert full == "the queue of two is full: 1 of 1 calls are taken"
    assert refused.startswith("1 request in the last minute found no room; the last one: model 'two'")
    call.end()
    first.cancel()


async def test_a_dead_upstream_is_named(log: pytest.LogCaptureFixture) -> None:
    puppets = Puppets()
    server = Server(puppets, recipe(quorum=1))
    url = "http://alice:password@10.0.0.7:8000/v1"
    for _ in range(3):
        asked = asyncio.create_task(server.ask())
        error = ServerUnreachable(f"{url}: Cannot connect", model="two")
        (await puppets.call("two")).fail(error)
        await puppets.answer("one")
        await puppets.answer("writer")
        assert (await asked).status_code == 200
    for message in log.messages:
        assert "missing=two:server_unreachable" in message
        assert 'details="two: http://10.0.0.7:8000/v1: Cannot connect"' in message
        assert "password" not in message
    (trouble,) = await server.troubles()
    assert trouble.startswith("calls of two fail, 3 times in a row, the last time")
    assert trouble.endswith("http://10.0.0.7:8000/v1: Cannot connect")


def digest_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


async def test_a_key_sees_its_own_requests_and_an_operators_key_sees_all() -> None:
    secrets = {name: f"sk-slimmoa-{name}" for name in ("bob", "eve", "root")}
    keys = [Key(name, digest_of(s), is_operator=name == "root") for name, s in secrets.items()]
    server = Server(await scripted(recipe()), env_keys=keys)
    for name in ("bob", "eve"):
        await server.ask(key=secrets[name])
        await server.ask(key=secrets[name], model="none")
    await server.ask(key="wrong")
    seen = {}
    for name, secret in secrets.items():
        headers = {"authorization": f"Bearer {secret}"}
        state = (await server._http.get("/v1/state", headers=headers)).json()
        seen[name] = [[each["key"] for each in state[what]] for what in ("answers", "refusals")]
        assert state["rates"]["answers"] == 2
        assert state["rates"]["refused"] == {"invalid_api_key": 1, "model_not_found": 2}
    assert seen == {
        "bob": [["bob"], ["bob"]],
        "eve": [["eve"], ["eve"]],
        "root": [["eve", "bob"], [None, "eve", "bob"]],
    }
