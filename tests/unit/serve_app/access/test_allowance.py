"""Limits of keys, seen from the API: each key has its own, whatever other keys do."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from configs.schema import Recipe
from serve_app.access.api_keys import generate_key
from serve_app.http.api import create_api
from tests.unit.serve_app.conftest import (
    CHAT,
    MIXTURE,
    SCOPE,
    Call,
    Exchange,
    Puppets,
    Scripted,
    recipe,
)

ALICE, BOB = generate_key(), generate_key()
Opened = Callable[..., httpx.AsyncClient]


def headers_of(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def mixture(tmp_path: Path, alice: dict[str, Any], **settings: Any) -> Recipe:
    """A recipe with two keys: alice's has these limits, bob's has none."""
    path = tmp_path / "keys.yaml"
    hashes = {"alice": ALICE, "bob": BOB}
    entries: dict[str, Any] = {
        name: {"key": f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"}
        for name, key in hashes.items()
    }
    entries["alice"] |= alice
    path.write_text(yaml.safe_dump(entries))
    access = {"keys_file": str(path), "allowance": settings.pop("allowance", {})}
    return Recipe.model_validate(recipe(**settings).model_dump() | {"access": access})


@pytest.fixture
def opened(tmp_path: Path, scripted: Scripted) -> Opened:
    """Opens a client of the API, where alice's key has the given limits."""

    def client(**alice: Any) -> httpx.AsyncClient:
        settings = {"allowance": alice.pop("allowance", {})}
        transport = httpx.ASGITransport(create_api(mixture(tmp_path, alice, **settings), scripted))
        return httpx.AsyncClient(transport=transport, base_url="http://api")

    return client


async def ask(client: httpx.AsyncClient, key: str, **fields: Any) -> httpx.Response:
    return await client.post(CHAT, json=MIXTURE | fields, headers=headers_of(key))


def require_over(response: httpx.Response, limit: str, at_least_s: int) -> None:
    """Fails unless alice's request was refused by this limit, with a wait of at least these seconds."""
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= at_least_s
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert error["message"].startswith(f"key 'alice': {limit}")


@pytest.mark.parametrize("stream", [False, True])
async def test_requests_per_minute_are_each_keys_own(opened: Opened, stream: bool) -> None:
    async with opened(requests_per_minute=2) as client:
        for _ in range(2):
            assert (await ask(client, ALICE, stream=stream)).status_code == 200
        require_over(await ask(client, ALICE, stream=stream), "requests_per_minute is 2", 29)
        for _ in range(4):
            assert (await ask(client, BOB)).status_code == 200


async def test_tokens_of_all_calls_count(opened: Opened) -> None:
    async with opened(tokens_per_minute=60) as client:
        usage = (await ask(client, ALICE, max_tokens=8)).json()["usage"]
        used = usage["all_calls"]["total_tokens"]
        assert used > 8
        refused = await ask(client, ALICE, max_tokens=60)
        require_over(refused, "tokens_per_minute is 60", used - 2)


async def test_a_request_for_a_longer_answer_is_refused_and_no_number_means_the_limit(
    opened: Opened, scripted: Scripted
) -> None:
    async with opened(max_tokens=5) as client:
        refused = await ask(client, ALICE, max_completion_tokens=6)
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert error["message"] == "max_tokens is 6; key 'alice' may ask for 5 at most"
        assert error["param"] == "max_tokens"
        assert scripted.asked == []
        for fields in ({}, {"max_tokens": 5}, {"model": "writer"}):
            assert (await ask(client, ALICE, **fields)).status_code == 200
            assert scripted.asked[-1][2].max_tokens == 5
        assert (await ask(client, BOB, max_tokens=6)).status_code == 200


async def test_a_model_that_a_key_may_not_ask_does_not_exist_for_it(opened: Opened) -> None:
    async with opened(models=["mix", "one"]) as client:
        listed = (await client.get("/v1/models", headers=headers_of(ALICE))).json()
        assert [card["id"] for card in listed["data"]] == ["mix", "one"]
        shown = await client.get("/v1/models/two", headers=headers_of(ALICE))
        refused = await ask(client, ALICE, model="two")
        told = [{**answer.json()["error"], "request_id": ""} for answer in (shown, refused)]
        assert told[0] == told[1]
        assert refused.status_code == 404
        assert refused.json()["error"]["message"] == "no model 'two' here; there are mix, one"
        assert (await ask(client, ALICE)).status_code == 200
        assert (await ask(client, BOB, model="two")).status_code == 200


async def test_a_key_without_a_limit_has_the_recipes(opened: Opened) -> None:
    async with opened(max_tokens=50, allowance={"max_tokens": 5}) as client:
        assert (await ask(client, ALICE, max_tokens=50)).status_code == 200
        assert (await ask(client, BOB, max_tokens=6)).status_code == 400


async def test_without_keys_the_recipes_limits_hold_for_all_callers(
    scripted: Scripted,
) -> None:
    access = {"allowance": {"requests_per_minute": 1}}
    api = create_api(Recipe.model_validate(recipe().model_dump() | {"access": access}), scripted)
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.post(CHAT, json=MIXTURE)).status_code == 200
        refused = await client.post(CHAT, json=MIXTURE)
    assert refused.status_code == 429
    assert refused.json()["error"]["message"].startswith("key 'anyone': requests_per_minute is 1")


class Endpoint:
    """An API over puppets, asked with one key or another."""

    def __init__(self, settings: Recipe, puppets: Puppets) -> None:
        self._api = create_api(settings, puppets)

    def ask(self, key: str, **fields: Any) -> Exchange:
        headers = [*SCOPE["headers"], (b"authorization", f"Bearer {key}".encode())]
        return Exchange(self._api, MIXTURE | fields, headers=headers)


async def end(exchange: Exchange, call: Call, how: str) -> None:
    """Ends a request: it is answered, it fails, the client leaves, or it is cancelled."""
    if how == "answered":
        call.say("text")
        call.end()
    elif how == "failed":
        call.fail(ValueError("broken"))
    elif how == "left":
        exchange.leave()
    else:
        exchange.app.cancel()
    await asyncio.wait([exchange.app])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", ["answered", "failed", "left", "cancelled"])
async def test_concurrency_counts_a_request_until_it_ends_in_any_way(
    tmp_path: Path, puppets: Puppets, how: str, stream: bool
) -> None:
    endpoint = Endpoint(mixture(tmp_path, {"concurrency": 1}), puppets)
    for _ in range(3):
        first = endpoint.ask(ALICE, model="one", stream=stream)
        call = await puppets.call("one")
        refused = endpoint.ask(ALICE, model="one", stream=stream)
        start = await refused.start()
        assert start["status"] == 429
        assert (b"retry-after", b"1") in start["headers"]
        other = endpoint.ask(BOB, model="one")
        await end(other, await puppets.call("one"), "left")
        await end(first, call, how)


async def test_a_loud_key_leaves_capacity_for_the_next(tmp_path: Path, puppets: Puppets) -> None:
    endpoint = Endpoint(mixture(tmp_path, {}, queue=14), puppets)  # each model takes in 18 calls
    loud = [endpoint.ask(ALICE, model="one", stream=True) for _ in range(16)]
    for _ in loud:
        await puppets.call("one")
    assert (await endpoint.ask(ALICE, model="one").start())["status"] == 429
    endpoint.ask(BOB, model="one")
    await puppets.call("one")
    for exchange in loud:
        exchange.leave()
        await exchange.app
    for _ in range(14):
        endpoint.ask(BOB, model="one")
        await puppets.call("one")


async def test_with_one_key_no_capacity_is_kept_free(tmp_path: Path, puppets: Puppets) -> None:
    settings = mixture(tmp_path, {}, queue=0)
    (tmp_path / "keys.yaml").write_text(f"alice: sha256:{hashlib.sha256(ALICE.encode()).hexdigest()}")
    endpoint = Endpoint(settings, puppets)
    for _ in range(4):
        endpoint.ask(ALICE, model="one")
        await puppets.call("one")
