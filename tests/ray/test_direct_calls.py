"""Calls over sockets as replicas come and go: by load, by a redeployment, and on two nodes."""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from cluster import ray_runtime
from configs.schema import Recipe
from serve_app import options
from tests.conftest import HOST, Serving
from tests.ray import two_nodes

HELLO: Any = [{"role": "user", "content": "hello"}]
WITHIN_S = 30.0


def running(deployment: str) -> int:
    """How many replicas of a deployment run, as Serve's controller says."""
    from ray import serve
    from ray.serve._private.common import ReplicaState

    found = serve.status().applications[ray_runtime.APP_NAME].deployments[deployment]
    return found.replica_states.get(ReplicaState.RUNNING, 0)


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, no longer than `WITHIN_S`."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < WITHIN_S
        time.sleep(0.2)


def test_a_range_of_replicas_follows_the_load_up_and_down(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The test does not wait as long as a model that takes minutes to start.
    monkeypatch.setattr(options, "UPSCALE_S", 1.0)
    monkeypatch.setattr(options, "DOWNSCALE_S", 1.0)
    held = {"engine": "scripted", "concurrency": 2, "first_token_s": 600}
    recipe = Recipe.model_validate(
        {
            "name": "mix",
            "models": {"held": held | {"replicas": {"min": 1, "max": 3}}},
            "layers": [{"proposers": [{"model": "held"}]}],
            "aggregator": {"model": "held"},
            "limits": {"keepalive_s": 0.2},
        }
    )
    with serving(recipe) as served, served.client() as client:
        assert running("model-held") == 1
        with ExitStack() as load:
            for _ in range(5):
                stream = client.chat.completions.create(model="held", messages=HELLO, stream=True)
                load.enter_context(closing(stream))
            until(lambda: running("model-held") == 3)
        until(lambda: running("model-held") == 1)


def mixture(tokens: int, prompt: str, replicas: int, weight_bytes: int | None) -> Recipe:
    """A recipe whose answers take about half a second.

    Args:
        tokens: what each model writes.
        prompt: the instructions of the aggregator.
        replicas: of each model.
        weight_bytes: of each model; None if the models take no card.
    """
    model: dict[str, Any] = {"engine": "scripted", "concurrency": 16, "replicas": replicas}
    model |= {"tokens": tokens, "token_s": 0.02, "weight_bytes": weight_bytes}
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": {"proposer": model, "writer": model},
            "layers": [{"proposers": [{"model": "proposer", "samples": 2}]}],
            "aggregator": {"model": "writer"},
            "references": {"prompt": prompt},
        }
    )


@dataclass
class Load:
    """Clients that ask one question after another, and what they got."""

    url: str
    tokens: Counter[int] = field(default_factory=Counter)
    """How many whole answers had so many tokens."""
    lost: list[str] = field(default_factory=list)
    """What the other requests got."""
    stopped: bool = False

    async def run(self, *, stream: bool, keep_alive: bool) -> None:
        """One client.

        A connection may be closed in the moment in which its client sends the next request over it. No
        server can prevent that, so clients that keep connections ask again, as OpenAI's do. The other
        clients ask nothing a second time.
        """
        headers = {} if keep_alive else {"Connection": "close"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20) as client:
            while not self.stopped:
                try:
                    try:
                        tokens = await self._ask(client, stream)
                    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
                        if not keep_alive or "complete message" in str(error):  # a response was cut
                            raise
                        tokens = await self._ask(client, stream)
                    self.tokens[tokens] += 1
                except (httpx.HTTPError, AssertionError, KeyError) as error:
                    self.lost.append(f"{stream=} {keep_alive=} {error!r}")

    async def _ask(self, client: httpx.AsyncClient, stream: bool) -> int:
        body: dict[str, Any] = {"model": "mix", "messages": HELLO, "stream": stream}
        if stream:
            body["stream_options"] = {"include_usage": True}
        answer = await client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        found = _read_stream(answer.text) if stream else answer.json()
        assert found["moa"]["degraded"] is False, found["moa"]
        tokens: int = found["usage"]["all_calls"]["completion_tokens"]
        return tokens


def _read_stream(text: str) -> dict[str, Any]:
    """The last value of each field of a stream's chunks."""
    *chunks, done = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    assert done == "[DONE]"
    found: dict[str, Any] = {}
    for chunk in map(json.loads, chunks):
        assert "error" not in chunk, chunk
        found |= {key: value for key, value in chunk.items() if value}
    return found


# On a card there is no room for a new replica beside the old one, so a single one would leave a gap.
@pytest.mark.parametrize(("replicas", "weight_bytes"), [(1, None), (2, 1 << 20)])
async def test_a_redeployment_under_load_loses_no_request(
    http_port: int, replicas: int, weight_bytes: int | None
) -> None:
    from ray import serve

    from serve_app.app import BuildArgs, build

    def deploy(recipe: Recipe) -> None:
        args = BuildArgs(
            recipe=recipe, follow_nodes=False, host=HOST, port=http_port, ingresses=replicas
        )
        ray_runtime.deploy(build(args), ray_runtime.APP_NAME)

    try:
        await asyncio.to_thread(deploy, mixture(8, "Answer as before.", replicas, weight_bytes))
        load = Load(f"http://{HOST}:{http_port}")
        clients = [
            asyncio.create_task(load.run(stream=stream, keep_alive=keep_alive))
            for stream in (True, False)
            for keep_alive in (True, False)
            for _ in range(2)
        ]
        await asyncio.sleep(1)
        await asyncio.to_thread(deploy, mixture(12, "Answer in another way.", replicas, weight_bytes))
        await asyncio.sleep(1)
        load.stopped = True
        await asyncio.gather(*clients)
    finally:
        serve.delete(ray_runtime.APP_NAME)
    assert load.lost == []
    # Three calls of 8 tokens, of 12, and of both while the models were replaced one after another.
    assert {24, 36} <= load.tokens.keys() <= {24, 28, 32, 36}


def test_a_model_on_another_node_is_called_over_tcp_and_answers_piece_by_piece() -> None:
    command = [sys.executable, "-m", "tests.ray.two_nodes"]  # a process has one cluster at most
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert len(said["ways"]) == 3 * len(two_nodes.MODELS)
    assert sum(way["same_node"] for way in said["ways"]) == len(two_nodes.MODELS)
    assert [way for way in said["ways"] if way["same_node"] == way["over_tcp"]] == []
    assert set(said["degraded"]) == {False}
    assert set(said["pieces"]) == {two_nodes.TOKENS}
