"""What a call costs to a model on another node (TCP), beside a model on the same node (Unix socket).

    python -m benchmarks.speed.two_nodes [--answers 40] [--json FILE]

A cluster of two nodes on this machine, each with a card and a scripted model that fills it; the ingress
is on one of the nodes. Streamed answers of the two models in turns: first one at a time, then 32 at a
time. The engines are alike, so all differences are the way's.
"""

import asyncio
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
import uvloop

from benchmarks.shared.harness import HOST, Limit, free_port, report, run
from benchmarks.shared.others import others_cpu_s
from benchmarks.shared.raw_client import Connection, read
from benchmarks.shared.simulated import CARD, cluster
from cluster import ray_runtime
from configs.schema import Recipe

MODELS = ("one", "two")
TOKENS, FIRST_S, TOKEN_S = 64, 0.05, 0.005
AT_ONCE = 32
LIMIT_MS, LIMIT_RATIO = 1.0, 0.97


def recipe() -> Recipe:
    """Two models that do not fit on a card together."""
    model = {"engine": "scripted", "weight_bytes": 60 << 30, "replicas": 1, "concurrency": 64}
    model |= {"tokens": TOKENS, "first_token_s": FIRST_S, "token_s": TOKEN_S}
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": dict.fromkeys(MODELS, model),
            "layers": [{"proposers": [{"model": MODELS[0]}]}],
            "aggregator": {"model": MODELS[1]},
        }
    )


def deploy(port: int) -> dict[str, str]:
    """Serve with the ingress on a node of a model; returns which model is near and which is far."""
    from ray.serve.context import _get_global_client

    from serve_app.app import BuildArgs, build

    head = ray_runtime.this_node()
    node = next(n["NodeID"] for n in ray_runtime.alive_nodes() if n["NodeID"] != head)
    args = BuildArgs(recipe=recipe(), host=HOST, port=port, ingress_node=node)
    ray_runtime.deploy(build(args), ray_runtime.APP_NAME)
    client: Any = _get_global_client()
    found = client.get_serve_details()["applications"][ray_runtime.APP_NAME]["deployments"]
    nodes = {name: found[f"model-{name}"]["replicas"][0]["node_id"] for name in MODELS}
    return {("same node" if nodes[name] == node else "other node"): name for name in MODELS}


async def ask(connection: Connection, model: str) -> list[float]:
    """Seconds from the question to each piece of text."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": True}
    exchange = await connection.ask(body)
    reply = read(exchange)
    if reply.problem or len(reply.words) != TOKENS:
        raise SystemExit(f"{len(reply.words)} pieces of {TOKENS}: {reply.problem}")
    return [at - exchange.began for at, _ in reply.words]


async def measure(url: str, models: dict[str, str], answers: int) -> list[dict[str, Any]]:
    """A row for each way."""
    alone: dict[str, list[list[float]]] = {way: [] for way in models}
    rates: dict[str, list[float]] = {way: [] for way in models}
    connections = [Connection(url) for _ in range(AT_ONCE)]
    for way in models:
        await asyncio.gather(*(ask(each, models[way]) for each in connections))
    for _ in range(answers):
        for way, model in models.items():
            alone[way].append(await ask(connections[0], model))
    for _ in range(answers // 10):
        for way, model in models.items():
            began = time.monotonic()
            for _ in range(4):
                await asyncio.gather(*(ask(each, model) for each in connections))
            rates[way].append(4 * AT_ONCE / (time.monotonic() - began))
    for each in connections:
        each.close()
    return [
        {
            "model on": way,
            "first token ms beyond the engine's": 1000 * (median(a[0] for a in alone[way]) - FIRST_S),
            "gap ms, p50": 1000 * median(b - a for each in alone[way] for a, b in pairwise(each)),
            f"answers/s at {AT_ONCE}": median(rates[way]),
        }
        for way in ("same node", "other node")
    ]


def main(
    *,
    answers: Annotated[int, typer.Option(min=10, help="Answers of each model, one at a time.")] = 40,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """A model on another node beside one on the same; takes two minutes."""
    port = free_port()
    with cluster(CARD, CARD):
        models = deploy(port)
        others_s, began = others_cpu_s(), time.monotonic()
        rows = uvloop.run(measure(f"http://{HOST}:{port}", models, answers))
        others = (others_cpu_s() - others_s) / (time.monotonic() - began)
    print(f"other programs meanwhile: {others:.2f} cores")
    near, far = ([value for value in row.values() if isinstance(value, float)] for row in rows)
    limits = [
        Limit("ms that the first token comes later from the other node", far[0] - near[0], LIMIT_MS),
        Limit("ms that a gap is longer", far[1] - near[1], LIMIT_MS),
        Limit("answers/s over the same node's", far[2] / near[2], LIMIT_RATIO, at_least=True),
    ]
    report("A model on the same node, and on another one", rows, limits, json)


if __name__ == "__main__":
    run(main)
