"""The Ray Serve graph: one deployment per model, and the ingress that mixes them.

The only file that makes deployments. Classes here add to the bare ones just what Serve needs.
No `from __future__ import annotations` here: Serve reads the builder's annotation.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import ray
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, model_validator
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from actors.engine import Share
from actors.folders import folder_here
from actors.ray_keeper import RayKeeper, RemoteKeeper
from actors.replica import Replica, Seat
from actors.weights import cached, fetch
from cluster import placement
from cluster.card import Card
from cluster.catalog import named
from cluster.inventory import detect
from cluster.placement import PlacedCard, Placement
from cluster.planner import plan_recipe
from cluster.policy import Member
from cluster.residency import Slot
from cluster.runtime import APP_NAME, await_gpus
from configs.load import load
from configs.schema import LlamaCppModel, Model, Recipe, VllmModel
from serve_app.api import create_api
from serve_app.ask import HandleModels
from serve_app.keys import Key, environment_keys

INGRESS = "ingress"
"""The deployment of the HTTP entry."""
INGRESS_REQUESTS = 4096  # Serve's own default is 5; queues are bounded where the engines are
SHORT_CALLS = 64  # room beside the queue for counting tokens and for readiness


class BuildArgs(BaseModel):
    """Arguments of the builder: a recipe by file (`config=configs/tiny_cpu.yaml`), or in full."""

    model_config = ConfigDict(extra="forbid")

    config: str | None = None
    """Path of a recipe, or a preset's name."""
    recipe: Recipe | None = None
    """The recipe itself, as `slimmoa export` writes it."""
    min_gpus: int = Field(0, ge=0)
    """Plan only once the nodes have so many GPUs: nodes may join after the recipe was deployed."""

    @model_validator(mode="after")
    def _one_of_them(self) -> "BuildArgs":
        if (self.config is None) == (self.recipe is None):
            raise ValueError("give either config=PATH or recipe={...}")
        return self


@dataclass(frozen=True, slots=True)
class Assignment:
    """One replica's seat, before it is taken. keeper: the card's; card: its number there."""

    member: str
    keeper: Any
    share: Share
    patience_s: float
    card: int | None = None


class ModelReplica(Replica):
    """A Replica as Serve constructs and ends it. It takes the seat of its rank."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, name: str, model: Model, queue: int, seats: list[Assignment]
    ) -> None:
        seat = None
        if seats:
            mine = seats[serve.get_replica_context().rank.rank]
            if mine.card is not None:  # Ray may have chosen another card than the plan
                os.environ["CUDA_VISIBLE_DEVICES"] = str(mine.card)
            seat = Seat(mine.member, RemoteKeeper(mine.keeper), mine.share, mine.patience_s)
        super().__init__(name, model, queue, seat, ray.get_runtime_context().current_actor)
        await self.start()

    async def __del__(self) -> None:
        if hasattr(self, "_engine"):
            await self.stop()


class Ingress:
    """The HTTP entry: the API over handles to the models."""

    def __init__(
        self, recipe: Recipe, handles: dict[str, DeploymentHandle[Any]], env_keys: tuple[Key, ...]
    ) -> None:
        self._api = create_api(recipe, HandleModels(handles), env_keys)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._api


def build(args: BuildArgs) -> Application:
    """The graph of a recipe, for `serve run serve_app.app:build config=configs/X.yaml`.

    Raises:
        RecipeError: there is no such recipe, or it has mistakes.
        DoesNotFit: the models do not fit on the cards, not even in turns.
        WeightsError: weights that are needed to plan cannot be had.
        KeysError: the API keys of the environment cannot be used.
    """
    recipe = args.recipe or load(args.config or "")
    if args.min_gpus:
        await_gpus(args.min_gpus)
    placement = plan_recipe(recipe, cards_of(recipe), find=weights_of)
    keepers = [
        _keeper_app(number, placed, recipe) if placed.slots else None
        for number, placed in enumerate(placement.cards)
    ]
    models = {name: _model_app(name, recipe, placement, keepers) for name in recipe.models}
    ingress: Any = serve.deployment(
        serve.ingress()(Ingress),
        name=INGRESS,
        max_ongoing_requests=INGRESS_REQUESTS,
        ray_actor_options={"num_cpus": 0},
    )
    # As hashes, and from here: an ingress may start again where the variable is not set.
    return cast("Application", ingress.bind(recipe, models, environment_keys()))


def serve_config(recipe: Recipe, host: str, port: int, *, ingresses: int = 1) -> dict[str, Any]:
    """The recipe as a Serve config file's content, complete in itself, for `serve deploy`.

    ingresses: replicas of the HTTP entry. With several, not only the head node listens, but every node
    with a replica, so that a load balancer finds another when one is lost.
    """
    settings = recipe.model_dump(mode="json", exclude_defaults=True)
    application: dict[str, Any] = {
        "name": APP_NAME,
        "route_prefix": "/",
        "import_path": "serve_app.app:build",
        "args": {"recipe": settings},
    }
    if ingresses > 1:
        application["deployments"] = [{"name": INGRESS, "num_replicas": ingresses}]
    return {
        "proxy_location": "HeadOnly" if ingresses == 1 else "EveryNode",
        "http_options": {"host": host, "port": port},
        "applications": [application],
    }


def cards_of(recipe: Recipe) -> list[Card]:
    """The cards that the recipe names, or else those of this machine."""
    if recipe.cards.names:
        return [named(name, number) for number, name in enumerate(recipe.cards.names)]
    return [replace(card, cores=_cores(card)) if card.kind == "cpu" else card for card in detect()]


def weights_here(_name: str, model: Model) -> Path | None:
    """A model's weights, if they are on this machine already."""
    if isinstance(model, LlamaCppModel):
        return cached(model.weights)
    return folder_here(model.weights) if isinstance(model, VllmModel) else None


def weights_of(name: str, model: Model) -> Path | None:
    """A model's weights on this machine. Single files are fetched now, for a plan needs their size;
    of folders it knows the shape, or they lie here."""
    if isinstance(model, LlamaCppModel):
        return fetch(name, model.weights)
    return weights_here(name, model)


def _keeper_app(number: int, placed: PlacedCard, recipe: Recipe) -> Application:
    order = list(recipe.models)
    slots = [
        Slot(
            f"{number}.{n}",
            tuple(Member(member_name(m), order.index(m.model)) for m in slot.members),
            keeps_loaded=slot.keeps_loaded and placed.card.kind == "cpu",
        )
        for n, slot in enumerate(placed.slots)
    ]
    deployment: Any = serve.deployment(
        RayKeeper,
        name=f"keeper-{number}",
        max_ongoing_requests=INGRESS_REQUESTS,
        health_check_period_s=1,
        ray_actor_options={"num_cpus": 0},
    )
    return cast("Application", deployment.bind(slots))


def member_name(member: placement.Member) -> str:
    """The name under which a replica is known to its keeper."""
    return f"{member.model}/{member.replica}"


def _model_app(
    name: str, recipe: Recipe, plan: Placement, keepers: Sequence[Application | None]
) -> Application:
    model, queue = recipe.models[name], recipe.limits.queue
    seats, options = [], {"num_cpus": 0.0}
    for seat in plan.seats(name):
        card, member = plan.cards[seat.card].card, seat.member
        on_gpu = card.kind == "gpu"
        share = Share(member.threads, on_gpu, member.utilization, member.kv_cache_memory_bytes)
        index = card.index if on_gpu else None
        patience_s = recipe.cards.patience_s
        keeper = keepers[seat.card]
        seats.append(Assignment(member_name(member), keeper, share, patience_s, index))
        # Fractions are cut, not rounded, to the four digits that Ray keeps, so they add up to <= 1.
        whole = card.cores if card.kind == "cpu" else 1
        amount = math.floor(member.fraction * whole * 10_000) / 10_000
        options = {"num_cpus": amount} if card.kind == "cpu" else {"num_cpus": 0, "num_gpus": amount}
    deployment: Any = serve.deployment(
        ModelReplica,
        name=f"model-{name}",
        num_replicas=len(seats) or model.replicas,
        max_ongoing_requests=model.concurrency + queue + SHORT_CALLS,
        ray_actor_options=options,
    )
    return cast("Application", deployment.bind(name, model, queue, seats))


def _cores(card: Card) -> int:
    """Cores of this machine that Ray may give out: it can have been started with fewer."""
    if not ray.is_initialized():
        return card.cores
    alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    nodes = [node["Resources"].get("CPU", 0) for node in alive]
    return min(card.cores, int(max(nodes, default=card.cores)) or card.cores)
