"""Serves a mixture on a cluster of its own with two nodes, asks it, and prints what was found as JSON.

python -m tests.ray.two_nodes
"""

import json
import time
from typing import Any

import httpx
import psutil

from benchmarks.shared.simulated import CARD, cluster
from cluster import ray_runtime
from configs.schema import Recipe
from tests.conftest import HOST, free_port

MODELS = ("one", "two")
TOKENS = 30
KNOWN_S = 20.0
"""Longest time in which all ingresses hear of all replicas."""
ASKED = 8
"""Answers in a row after which each ingress is taken to have heard."""


def recipe() -> Recipe:
    """Two models that do not fit on a card together, so each gets a node of its own."""
    model = {"engine": "scripted", "weight_bytes": 60 << 30, "replicas": 1}
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": dict.fromkeys(MODELS, model | {"tokens": TOKENS, "token_s": 0.01}),
            "layers": [{"proposers": [{"model": MODELS[0]}]}],
            "aggregator": {"model": MODELS[1]},
        }
    )


def replicas(deployment: str) -> list[dict[str, Any]]:
    """What Serve says of each replica of a deployment."""
    from ray.serve.context import _get_global_client

    client: Any = _get_global_client()
    deployments = client.get_serve_details()["applications"][ray_runtime.APP_NAME]["deployments"]
    found: list[dict[str, Any]] = deployments[deployment]["replicas"]
    return found


def is_over_tcp(ingress: int, replica: int) -> bool:
    """Whether a process has a TCP connection to a port at which another process itself listens."""
    ports = psutil.Process(replica).net_connections("tcp")
    listening = {tuple(c.laddr) for c in ports if c.status == psutil.CONN_LISTEN}
    return any(tuple(c.raddr) in listening for c in psutil.Process(ingress).net_connections("tcp"))


def ways() -> list[dict[str, bool]]:
    """For each pair of ingress and model, whether they are on the same node, and whether the ingress
    calls the model over TCP."""
    return [
        {
            "same_node": ingress["node_id"] == replica["node_id"],
            "over_tcp": is_over_tcp(ingress["pid"], replica["pid"]),
        }
        for ingress in replicas("ingress")
        for model in MODELS
        for replica in replicas(f"model-{model}")
    ]


def ask(url: str, model: str, *, stream: bool) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": stream}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20)
    assert answer.status_code == 200, answer.text
    return answer


def wait_for_all(url: str) -> None:
    """Ask until no ingress is left that has not heard of a replica yet: each hears of the replicas by
    itself, and some moments after the deploy at worst."""
    body = {"model": "mix", "messages": [{"role": "user", "content": "hello"}]}
    deadline = time.monotonic() + KNOWN_S
    in_a_row = 0
    while in_a_row < ASKED and time.monotonic() < deadline:
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20)
        in_a_row = in_a_row + 1 if answer.status_code == 200 else 0


def count_pieces(url: str, model: str) -> int:
    """How many pieces of text the streamed answer of a model has."""
    lines = ask(url, model, stream=True).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return sum(bool(delta.get("content")) for delta in deltas)


def main() -> None:
    port = free_port()
    url = f"http://{HOST}:{port}"
    with cluster(CARD, CARD):
        from serve_app.app import BuildArgs, build

        # One on each node: on those of the models, and on the head.
        args = BuildArgs(recipe=recipe(), host=HOST, port=port, ingresses=3)
        ray_runtime.deploy(build(args), ray_runtime.APP_NAME)
        wait_for_all(url)
        said = {
            "ways": ways(),
            "degraded": [ask(url, "mix", stream=False).json()["moa"]["degraded"] for _ in range(8)],
            "pieces": [count_pieces(url, model) for model in MODELS for _ in range(4)],
        }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
