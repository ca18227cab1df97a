"""Three times the load that the models can carry: what becomes of who is let in, and of the rest.

    python -m benchmarks.speed.overload [--config RECIPE] [--seconds 60] [--seed 1] [--json FILE]

Scripted engines of fixed speed on a real Serve, slow enough that the queues are measured and not Ray.
Clients that always wait for an answer give the capacity; then requests come at random (Poisson) at 90%
of it, and at three times it. Latencies count from the moment at which a request was due.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.shared.harness import Limit, percentile, report, run, serving
from benchmarks.shared.open_loop import Load, Outcomes, arrivals, client_process, offer, saturated
from benchmarks.shared.outcome import Outcome
from configs.load import load as load_recipe
from configs.schema import Recipe

BELOW, ABOVE = 0.9, 3.0
P99_RATIO = 1.5
REFUSED_S = 0.1
CALL_S = 1.0
CONCURRENCY = 8
IN_WORK = 4
"""Clients for each place of an engine: its two stages full, and as many waiting."""


def recipe() -> Recipe:
    """Three proposers and an aggregator of CONCURRENCY / CALL_S calls per second each."""
    model = {"engine": "scripted", "concurrency": CONCURRENCY, "tokens": 11}
    model |= {"first_token_s": CALL_S / 2, "token_s": CALL_S / 20}
    proposers = ("first", "second", "third")
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": dict.fromkeys((*proposers, "writer"), model),
            "layers": [{"proposers": [{"model": name} for name in proposers]}],
            "aggregator": {"model": "writer"},
        }
    )


def figures(per_s: float, found: Sequence[Outcome]) -> dict[str, Any]:
    """What came of one load. per_s: what was offered; found: all of its outcomes."""
    accepted = [outcome.wall_s for outcome in found if outcome.is_answered]
    refused = [outcome for outcome in found if outcome.status == 429]
    took = [outcome.wall_s for outcome in refused]
    return {
        "offered/s": per_s,
        "offered": len(found),
        "accepted": len(accepted),
        "degraded": sum(outcome.is_degraded for outcome in found),
        "refused": len(refused),
        "failed": len(found) - len(accepted) - len(refused),
        "hung": sum(outcome.is_hung for outcome in found),
        "accepted p50 s": percentile(accepted, 0.5),
        "accepted p99 s": percentile(accepted, 0.99),
        "accepted max s": max(accepted),
        "refused p99 s": percentile(took, 0.99) if took else "",
        "refused max s": max(took, default=""),
        "no Retry-After": sum(outcome.attempts[-1].retry_after is None for outcome in refused),
    }


def limits_of(below: dict[str, Any], above: dict[str, Any]) -> list[Limit]:
    """What the figures of the load below capacity and of the one above it must hold."""
    ratio = above["accepted p99 s"] / below["accepted p99 s"]
    return [
        Limit("p99 of accepted requests, above capacity over below it", ratio, P99_RATIO),
        Limit("seconds, p99 of refusals", above["refused p99 s"] or 0.0, REFUSED_S),
        Limit("refused above capacity", above["refused"], 1, at_least=True),
        Limit("refused below capacity", below["refused"], 0),
        Limit("refusals without Retry-After", above["no Retry-After"], 0),
        Limit("requests that failed otherwise", below["failed"] + above["failed"], 0),
        Limit("requests that hung", below["hung"] + above["hung"], 0),
    ]


def main(
    *,
    config: Annotated[str | None, typer.Option(help="A recipe of scripted models.")] = None,
    seconds: Annotated[float, typer.Option(min=5, help="Of each load.")] = 60,
    seed: Annotated[int, typer.Option(help="Of the moments at which requests come.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """Capacity, then load at 90% of it and at three times it; about three minutes."""
    mixture = load_recipe(config) if config else recipe()
    busiest = max(model.concurrency * model.replicas.min for model in mixture.models.values())
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="slimmoa-overload-") as folder,
        client_process() as pool,
        serving(mixture) as url,
    ):
        idle = Load(url, mixture.name, (), mixture.limits.deadline_s)
        capacity = saturated(pool, idle, IN_WORK * busiest, seconds / 4)
        for share in (BELOW, ABOVE):
            due_s = arrivals(share * capacity, seconds, seed)
            file = Path(folder, f"{share}.jsonl")
            offered = replace(idle, due_s=due_s)
            offer(pool, offered, file).result()
            rows.append(figures(share * capacity, Outcomes(offered, file)()))
    title = f"Overload: capacity {capacity:.2f} answers/s, {seconds:g} s each, seed {seed}"
    below, above = rows
    table = [
        {"figure": name, f"{BELOW:g} x capacity": below[name], f"{ABOVE:g} x capacity": above[name]}
        for name in below
    ]
    report(title, table, limits_of(below, above), json)


if __name__ == "__main__":
    run(main)
