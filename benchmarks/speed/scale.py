"""The same recipe on 1, 2, 4 and 8 cards, and on nodes that join and leave while it answers.

A simulated cluster: every node is a Ray node of this machine with one logical card, and the engines are
scripted ones of fixed speed, so that what is measured is placement, routing and what they cost. Each
figure is a ratio within one run.

    python -m benchmarks.speed.scale cards        throughput against the linear ideal
    python -m benchmarks.speed.scale nodes        a node joins under load, and one is lost
    python -m benchmarks.speed.scale sizes        nodes whose cards differ in size
"""

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer

from actors.weights.lookup import find_weights
from benchmarks.shared.harness import HOST, Answer, Limit, ask, free_port, report
from benchmarks.shared.simulated import CARD, Nodes, cluster
from cluster import ray_runtime
from cluster.plan.planner import plan_recipe
from cluster.plan.task import choose_cards
from cluster.residency.state import State
from configs.schema import Recipe

SMALL_CARD = "RTX-4090"
MODEL_BYTES = 16_000_000_000
PROPOSERS = ("first", "second", "third")
WRITER = "writer"
CONCURRENCY = 4
LIMIT = 0.9
WAIT_S = 30
STAGGER_S = 3.0
LOOK_S = 0.5
REFUSED = 429
FOUND_DEAD_S = 10.0
MOST_CALLS = 3
"""An answer takes two calls, one after the other; no model that is not there is waited for."""

app = typer.Typer(help=__doc__, add_completion=False, rich_markup_mode=None)


def recipe(call_s: float) -> Recipe:
    """Three proposers and an aggregator that fit on one card together. call_s: of each engine call."""
    model = {
        "engine": "scripted",
        "tokens": 11,
        "first_token_s": call_s / 2,
        "token_s": call_s / 20,
        "weight_bytes": MODEL_BYTES,
        "concurrency": CONCURRENCY,
    }
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": dict.fromkeys((*PROPOSERS, WRITER), model),
            "layers": [{"proposers": [{"model": name} for name in PROPOSERS]}],
            "aggregator": {"model": WRITER},
        }
    )


@contextmanager
def served(mixture: Recipe) -> Iterator[str]:
    """The recipe on the cluster that is joined, as `slimmoa serve --address` has it; its base URL."""
    from serve_app.app import BuildArgs, build

    port = free_port()
    graph = build(BuildArgs(recipe=mixture, host=HOST, port=port))
    ray_runtime.deploy(graph, ray_runtime.APP_NAME)
    yield f"http://{HOST}:{port}"


def replicas_by_card_node() -> dict[str, list[str]]:
    """The models with a replica on each node, by the node's ID, as the keepers of the cards say."""
    import ray

    from actors.keeper.ray_keeper import keepers

    found: dict[str, list[str]] = {}
    for name, keeper in keepers(ray_runtime.APP_NAME).items():
        standing = ray.get(keeper.snapshots.remote(), timeout=WAIT_S)
        here = [m.partition("/")[0] for m, s in standing.items() if s.state is State.RESIDENT]
        found.setdefault(name.split(":")[2], []).extend(sorted(here))
    return found


async def load(url: str, clients: int, tag: str, stop: threading.Event) -> list[Answer]:
    """So many clients that each ask again as soon as they are answered, until they are to stop."""
    numbers = itertools.count()

    async def client(number: int, session: aiohttp.ClientSession, answers: list[Answer]) -> None:
        await asyncio.sleep(number * STAGGER_S / clients)  # or answers come in bursts for ever
        while not stop.is_set():
            question = f"{tag} {next(numbers)}"
            answers.append(answer := await ask(session, url, "mix", question, stream=False))
            if answer.status == REFUSED:
                await asyncio.sleep(float(answer.retry_after or 1))

    answers: list[Answer] = []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(client(n, session, answers) for n in range(clients)))
    return answers


async def load_for(url: str, clients: int, seconds: float, tag: str) -> list[Answer]:
    """`load` for some time."""
    stop = threading.Event()
    asyncio.get_running_loop().call_later(seconds, stop.set)
    return await load(url, clients, tag, stop)


def rate(answers: Sequence[Answer], begin: float, end: float) -> float:
    """Whole answers per second that ended in a span of the monotonic clock."""
    return sum(is_whole(a) and begin <= a.ended < end for a in answers) / (end - begin)


def is_whole(answer: Answer) -> bool:
    """Answered, with every proposal."""
    return answer.status == 200 and not answer.error and answer.moa.get("degraded") is False


@app.command()
def cards(
    *,
    counts: Annotated[list[int] | None, typer.Option(help="Cards; once for each run.")] = None,
    call_s: Annotated[float, typer.Option(min=0.05, help="Seconds of an engine call.")] = 2.0,
    seconds: Annotated[float, typer.Option(min=1, help="Of load, after as many to warm up.")] = 20,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """Throughput of the mixture on 1, 2, 4 and 8 cards against that of one card times their number."""
    mixture, rows, limits = recipe(call_s), list[dict[str, Any]](), list[Limit]()
    for count in counts or (1, 2, 4, 8):
        with cluster(*[CARD] * count), served(mixture) as url:
            placed = replicas_by_card_node()
            clients = 4 * CONCURRENCY * count  # each answer is in one of two stages, and as many wait
            answers = asyncio.run(load_for(url, clients, 2 * seconds, "question"))
            end = max(a.began for a in answers)
            per_s = rate(answers, end - seconds, end)
        ideal = CONCURRENCY / call_s * count
        whole = {"cards": count, "replicas": sum(map(len, placed.values()))}
        rows.append(whole | {"answers/s": per_s, "of the ideal": per_s / ideal})
        as_planned = [sorted(here) == sorted(mixture.models) for here in placed.values()]
        rows[-1] |= {"cards as planned": sum(as_planned)}
        failed = sum(not is_whole(a) for a in answers)
        rows[-1] |= {"failed or degraded": failed}
        limits.append(Limit(f"cards as planned, of {count}", sum(as_planned), count, at_least=True))
        limits.append(Limit(f"failed or degraded answers on {count} cards", failed, 0))
    per_card = [row["answers/s"] / row["cards"] for row in rows]
    share = per_card[-1] / per_card[0]
    limits.append(Limit("throughput per card, the most cards over one", share, LIMIT, at_least=True))
    report(f"Engine calls of {call_s:g} s, {CONCURRENCY} at a time per replica", rows, limits, json)


@app.command()
def sizes(
    *,
    nodes: Annotated[list[str] | None, typer.Option(help="Cards of a node; once for each.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Of load.")] = 10,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """A model that fits only on a large card, by default with two small ones, of a node each; then the
    first node is lost, for good."""
    data = recipe(1.0).model_dump()
    data["models"]["first"]["weight_bytes"] = 4 * MODEL_BYTES
    data["aggregator"]["fallbacks"] = PROPOSERS
    mixture, rows = Recipe.model_validate(data), list[dict[str, Any]]()
    with cluster(*(nodes or (CARD, SMALL_CARD, SMALL_CARD))) as joined, served(mixture) as url:
        plan = plan_recipe(mixture, choose_cards(mixture, ray_runtime.cluster_cards()), find_weights)
        found = replicas_by_card_node()
        for node in dict.fromkeys(placed.card.node for placed in plan.cards):
            here = [placed for placed in plan.cards if placed.card.node == node]
            wanted = sorted(m.model for p in here for slot in p.slots for m in slot.members)
            rows.append({"node's cards": ", ".join(placed.card.name for placed in here)})
            rows[-1] |= {"planned": " ".join(wanted), "placed": " ".join(sorted(found.get(node, [])))}
            rows[-1] |= {"as planned": int(wanted == sorted(found.get(node, [])))}
        answers = asyncio.run(load_for(url, 4 * CONCURRENCY, seconds, "question"))
        joined.lose(0)
        time.sleep(FOUND_DEAD_S)
        left = asyncio.run(load_for(url, 1, seconds, "what is left"))
    failed = sum(not is_whole(answer) for answer in answers)
    lost = sum(answer.status != 200 or bool(answer.error) for answer in left)
    slowest = max(answer.ended - answer.began for answer in left)
    limits = [
        Limit(f"lost of {len(left)} answers without the first node", lost, 0),
        Limit("seconds of the slowest of them", slowest, MOST_CALLS * 1.0),
        Limit("nodes as planned", sum(row["as planned"] for row in rows), len(rows), at_least=True),
        Limit(f"failed or degraded of {len(answers)} answers", failed, 0),
    ]
    report("Cards of different sizes", rows, limits, json)


@dataclass(slots=True)
class Phase:
    """A span of the load. begin, end: of the monotonic clock; cards: how many there were."""

    name: str
    cards: int
    begin: float = 0.0
    end: float = 0.0


@app.command()
def nodes(
    *,
    call_s: Annotated[float, typer.Option(min=0.05, help="Seconds of an engine call.")] = 1.0,
    seconds: Annotated[float, typer.Option(min=1, help="Of load in each phase.")] = 20,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """Two nodes under load; a third joins, and then one of the first is killed."""
    mixture = recipe(call_s)
    phases = [Phase("two nodes", 2), Phase("a third has joined", 3), Phase("one was killed", 2)]
    with cluster(CARD, CARD) as found, served(mixture) as url:
        asyncio.run(load_for(url, 4 * CONCURRENCY, seconds / 4, "warm"))
        answers, took_s = _changing(found, url, phases, seconds, mixture)
    rates = [rate(answers, phase.begin, phase.end) for phase in phases]
    rows: list[dict[str, Any]] = [
        {"phase": phase.name, "cards": phase.cards, "answers/s": per_s}
        for phase, per_s in zip(phases, rates, strict=True)
    ]
    refused = sum(a.status == REFUSED for a in answers)
    failed = sum(a.status != 200 or bool(a.error) for a in answers) - refused
    degraded = sum(a.status == 200 and not is_whole(a) for a in answers)
    rows.append({"phase": f"of {len(answers)} answers degraded", "cards": "", "answers/s": degraded})
    rows.append({"phase": "refused, and asked later", "cards": "", "answers/s": refused})
    rows.append({"phase": "seconds until the joined node served", "cards": "", "answers/s": took_s})
    gain = rates[1] / rates[0]
    limits = [
        Limit("requests lost", failed, 0),
        Limit("throughput of three nodes over two", gain, LIMIT * 3 / 2, at_least=True),
    ]
    report(f"Nodes that join and leave; engine calls of {call_s:g} s", rows, limits, json)


def _changing(
    found: Nodes, url: str, phases: Sequence[Phase], seconds: float, mixture: Recipe
) -> tuple[list[Answer], float]:
    """The answers, and how long the third node took to be of use. Ray starts nodes in the main thread
    only, so the clients run in another."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(asyncio.run, load(url, 4 * CONCURRENCY * 2, "question", stop))
        try:
            _last(phases[0], seconds)
            began = time.monotonic()
            found.add()
            _until_all_placed(mixture, 3)
            took_s = time.monotonic() - began
            _last(phases[1], seconds)
            found.lose()
            _last(phases[2], seconds)
        finally:
            stop.set()
        return asking.result(), took_s


def _last(phase: Phase, seconds: float) -> None:
    phase.begin = time.monotonic()
    time.sleep(seconds)
    phase.end = time.monotonic()


def _until_all_placed(mixture: Recipe, count: int) -> None:
    wanted = sorted(mixture.models)
    while sum(sorted(here) == wanted for here in replicas_by_card_node().values()) < count:
        time.sleep(LOOK_S)


if __name__ == "__main__":
    app()
