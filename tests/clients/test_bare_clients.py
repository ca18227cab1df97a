"""HTTP clients without any knowledge of OpenAI's API, with their own defaults: curl, and those of the
JDK and of Go, which read events as OpenAI's clients for their languages do."""

import base64
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import ALONE, HERE, KEY, MODELS, cases
from tests.conftest import Endpoint

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Got:
    """What a client got for a request."""

    status: int
    protocol: str
    text: str
    """The body; of a stream the data of each event, one a line."""

    @property
    def events(self) -> list[Any]:
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def answer(self) -> Any:
        return json.loads(self.text)

    @property
    def words(self) -> list[str]:
        """The answer of a stream."""
        deltas = [choice["delta"] for event in self.events for choice in event["choices"]]
        return "".join(delta.get("content") or "" for delta in deltas).split()


Requests = Sequence[tuple[str, str, str, str, str]]
Client = Callable[[Requests], dict[str, Got]]


def requests(url: str) -> Requests:
    """What each client is to ask: what to do, a name, the URL, the key and the body."""
    asked = cases(url, silent=False)

    def chat(messages: str = "hello", model: str = "mix", **fields: Any) -> str:
        return json.dumps({"model": model, "messages": asked[messages], "seed": 1} | fields)

    def post(name: str, body: str, key: str = KEY, act: str = "ask") -> tuple[str, str, str, str, str]:
        return act, name, f"{url}/chat/completions", key, body

    responses = json.dumps({"model": "mix", "input": "hello", "seed": 1, "stream": True})
    return [
        ("ask", "models", f"{url}/models", KEY, ""),
        post("whole", chat()),
        post("stream", chat(stream=True)),
        post("shown", chat(stream=True, moa={"events": True})),
        post("long", chat("long", stream=True)),
        ("ask", "responses", f"{url}/responses", KEY, responses),
        post("unknown", chat(model="nobody")),
        post("broken", chat(model="broken", stream=True)),
        post("key", chat(), "wrong"),
        post("overflow", chat("overflow")),
        post("parameter", chat(n=2)),
        post("held", chat(model="slow", stream=True), ALONE, "hold"),
        post("busy", chat(), ALONE),
        post("left", "", ALONE, "leave"),
        post("let in", chat(), ALONE),
    ]


def check(got: dict[str, Got]) -> None:
    """Each client gets whole answers, whole streams, errors as they are, and may leave."""
    assert [card["id"] for card in got["models"].answer["data"]] == ["mix", *MODELS]
    whole = got["whole"].answer["choices"][0]["message"]["content"]
    assert got["stream"].words == whole.split()
    assert len(whole.split()) == 20
    kinds = [event["moa"]["type"] for event in got["shown"].events if "moa" in event]
    assert kinds.count("proposal.done") == 3
    assert got["long"].events[-1]["moa"]["degraded"] is True
    assert got["long"].events[-1]["system_fingerprint"] == "slimmoa-degraded"
    responses = got["responses"].events
    assert responses[-1]["type"] == "response.completed"
    assert responses[-1]["response"]["output"][-1]["content"][0]["text"] == whole
    errors = {
        "unknown": (404, "model_not_found"),
        "broken": (502, "engine_error"),
        "key": (401, "invalid_api_key"),
        "overflow": (400, "context_length_exceeded"),
        "parameter": (400, "invalid_request"),
        "busy": (429, "rate_limit_exceeded"),
    }
    for name, error in errors.items():
        assert (got[name].status, got[name].answer["error"]["code"]) == error
    assert len(got["held"].events) == 3
    assert got["let in"].status == 200
    assert {answer.protocol for answer in got.values()} <= {"HTTP/1.1", "HTTP_1_1", ""}


def piped(*command: str | Path) -> Client:
    """A client that reads requests from its input."""

    def ask(asked: Requests) -> dict[str, Got]:
        lines = "".join("\t".join(request) + "\n" for request in asked)
        done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        got = {}
        for line in done.stdout.splitlines():
            name, status, protocol, text = line.split("\t")
            got[name] = Got(int(status), protocol, base64.b64decode(text).decode())
        return got

    return ask


def by_curl(asked: Requests) -> dict[str, Got]:
    """Each request by a curl of its own. `hold` reads three events, and `leave` ends that curl."""
    got, held = {}, None
    for act, name, url, key, body in asked:
        if act == "leave":
            assert held is not None
            held.kill()
            held.communicate()
            got[name] = Got(0, "", "")
            continue
        command = ["curl", "-sSN", "-w", "\n%{http_code} HTTP/%{http_version}", url]
        command += ["-H", f"Authorization: Bearer {key}"]
        if body:
            command += ["-H", "Content-Type: application/json", "--data-binary", "@-"]
        curl = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert curl.stdin is not None
        assert curl.stdout is not None
        curl.stdin.write(body)
        curl.stdin.close()
        curl.stdin = None
        if act == "hold":
            held = curl
            found = _data(curl.stdout)
            got[name] = Got(200, "", "\n".join(next(found) for _ in range(3)))
            continue
        text, _, end = curl.communicate(timeout=60)[0].rpartition("\n")
        status, protocol = end.split()
        if "data: " in text:
            text = "\n".join(_data(text.splitlines()))
        got[name] = Got(int(status), protocol, text)
    return got


def _data(lines: Any) -> Iterator[str]:
    for line in lines:
        data = line.strip().removeprefix("data: ")
        if data != line.strip() and data != "[DONE]":
            yield data


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(endpoint: Endpoint) -> None:
    check(by_curl(requests(f"{endpoint.base_url}/v1")))


@pytest.mark.skipif(shutil.which("java") is None, reason="needs a JDK")
def test_the_jdks_client_which_offers_http_2(endpoint: Endpoint) -> None:
    ask = piped("java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", HERE / "JdkClient.java")
    check(ask(requests(f"{endpoint.base_url}/v1")))


@pytest.mark.slow
@pytest.mark.parametrize("version", ["before-3.43", "since-3.43"])
def test_gos_client_with_the_reader_of_openais(endpoint: Endpoint, go: str, version: str) -> None:
    ask = piped(go, "run", HERE / "go_client.go", version)
    check(ask(requests(f"{endpoint.base_url}/v1")))
