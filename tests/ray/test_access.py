"""Access through the real Serve proxy: by OpenAI's client, and attempts by raw connections."""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from openai import OpenAI

from configs.schema import Recipe
from serve_app.access.api_keys import generate_key
from tests.conftest import Endpoint, Serving
from tests.wire import CLOSE, Wire, ambiguous, asked, attempt, head, post, smuggled

ALICE, BOB = generate_key(), generate_key()
LONG_ANSWER_TOKENS = 20_000


def settings(keys_file: Path | None) -> Recipe:
    quick = {"engine": "scripted", "tokens": 8}
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": {
                "quick": quick,
                "writer": quick,
                "long": quick | {"tokens": LONG_ANSWER_TOKENS, "token_s": 0, "context_tokens": 100_000},
            },
            "layers": [{"proposers": [{"model": "quick"}]}],
            "aggregator": {"model": "writer"},
            "limits": {"read_timeout_s": 1, "max_body_bytes": 4096},
            "access": {} if keys_file is None else {"keys_file": str(keys_file), "reload_s": 0.1},
        }
    )


def entry(key: str, **limits: Any) -> str:
    return json.dumps({"key": f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"} | limits)


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("access") / "keys.yaml"
    path.write_text(f"alice: {entry(ALICE)}\nbob: {entry(BOB, requests_per_minute=1)}\n")
    return path


@pytest.fixture(scope="module")
def endpoint(serving: Serving, keys_file: Path) -> Iterator[Endpoint]:
    with serving(settings(keys_file)) as served:
        yield served


def client(endpoint: Endpoint, key: str) -> Any:
    return OpenAI(base_url=f"{endpoint.base_url}/v1", api_key=key, max_retries=0)


def ask(endpoint: Endpoint, key: str, **fields: Any) -> Any:
    return client(endpoint, key).chat.completions.create(**json.loads(asked("mix")), **fields)


def test_a_valid_key_is_admitted_and_no_other(endpoint: Endpoint) -> None:
    assert ask(endpoint, ALICE).choices[0].message.content
    for wrong in (generate_key(), "none", ALICE[:-1]):
        with pytest.raises(openai.AuthenticationError) as refused:
            ask(endpoint, wrong)
        assert refused.value.code == "invalid_api_key"
        assert refused.value.response.headers["www-authenticate"].startswith("Bearer")
    for path in ("/v1/models", "/readyz", "/openapi.json"):
        assert httpx.get(endpoint.base_url + path).status_code == 401
    assert httpx.get(f"{endpoint.base_url}/healthz").status_code == 200


def test_one_keys_limit_is_not_anothers(endpoint: Endpoint) -> None:
    assert ask(endpoint, BOB).choices[0].message.content
    with pytest.raises(openai.RateLimitError) as refused:
        ask(endpoint, BOB)
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 60
    assert ask(endpoint, ALICE).choices[0].message.content


def test_a_key_that_is_taken_away_is_refused_from_then_on(endpoint: Endpoint, keys_file: Path) -> None:
    before = keys_file.read_text()
    late = generate_key()
    keys_file.write_text(f"{before}late: {entry(late)}\n")
    began = time.monotonic()
    while httpx.get(f"{endpoint.base_url}/v1/models", headers=auth(late)).status_code == 401:
        assert time.monotonic() - began < 10
    keys_file.write_text(before)
    while httpx.get(f"{endpoint.base_url}/v1/models", headers=auth(late)).status_code == 200:
        assert time.monotonic() - began < 20


def auth(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("name", ambiguous(ALICE))
def test_ambiguous_headers_and_paths_open_nothing(endpoint: Endpoint, name: str) -> None:
    sent, expected = ambiguous(ALICE)[name]
    assert attempt(endpoint.base_url, sent) == expected


def test_a_body_of_two_lengths_smuggles_no_request(endpoint: Endpoint) -> None:
    assert 200 not in smuggled(endpoint.base_url, ALICE)


def test_a_body_too_large_is_refused_while_it_comes(endpoint: Endpoint) -> None:
    sent = post(ALICE, "Content-Length: 1000000000")
    assert attempt(endpoint.base_url, sent, " " * 8192) == [413]


def test_a_slow_body_is_refused_and_the_connection_closed(endpoint: Endpoint) -> None:
    assert attempt(endpoint.base_url, post(ALICE, "Content-Length: 500"), "{") == [408]


def test_headers_of_any_size_open_nothing(endpoint: Endpoint) -> None:
    assert 200 not in attempt(endpoint.base_url, head("X: " + "x" * 1_000_000, CLOSE))


def test_a_client_that_reads_nothing_holds_no_slot(endpoint: Endpoint) -> None:
    body = asked("long", max_tokens=LONG_ANSWER_TOKENS, stream=True)
    with Wire(endpoint.base_url) as wire:
        wire.send(post(ALICE, f"Content-Length: {len(body)}"), body)
        began = time.monotonic()
        while not endpoint.stats("long").finished:
            assert time.monotonic() - began < 60
        assert endpoint.stats("long").in_flight == 0
    assert ask(endpoint, ALICE).choices[0].message.content


def test_no_other_port_of_ours_answers_a_request(endpoint: Endpoint) -> None:
    """Asks every port of a process of this Ray session, those of engines and keepers too."""
    ours = {httpx.URL(endpoint.base_url).port}
    found: dict[int, list[int]] = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            listening = [c for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
            found |= {c.laddr.port: [] for c in listening if c.laddr.port not in ours}
    assert found  # Ray's own at least
    for port in found:
        with suppress(OSError), Wire(f"http://127.0.0.1:{port}", patience_s=1) as wire:
            wire.send(head(f"Authorization: Bearer {ALICE}", CLOSE))
            found[port] = wire.statuses()
    assert [port for port, statuses in found.items() if 200 in statuses] == []


def test_without_keys_requests_from_elsewhere_are_refused(serving: Serving) -> None:
    """From a proxy on this machine that names its client, and by a web page's name for this machine."""
    with serving(settings(None)) as served:
        with closing(served.client()) as openai_client:
            assert openai_client.models.list().data
        for headers in ({"X-Forwarded-For": "203.0.113.7"}, {"Host": "evil.example.org"}):
            refused = httpx.get(f"{served.base_url}/v1/models", headers=headers)
            assert refused.status_code == 403
            assert refused.json()["error"]["code"] == "permission_denied"


def test_an_exported_config_names_the_file_of_keys_and_holds_none(keys_file: Path) -> None:
    from serve_app.serve_config import serve_config

    exported = serve_config(settings(keys_file), "0.0.0.0", 8000)
    assert exported["applications"][0]["args"]["recipe"]["access"]["keys_file"] == str(keys_file)
    assert "sha256" not in json.dumps(exported)
