"""The Ray Serve graph: one deployment per model, and the ingress that mixes them.

The only file that makes deployments. Classes here add to the bare ones just what Serve needs.
No `from __future__ import annotations` here: Serve reads the builder's annotation.
"""

import asyncio
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import ray
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, model_validator
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.handle import DeploymentHandle

from actors.keeper.registration import claim_assignment
from actors.replica import Replica
from actors.weights.files import cached, fetch
from actors.weights.folders import folder_here
from cluster import ray_runtime
from cluster.cards.card import Card
from cluster.cards.catalog import card_by_name
from cluster.cards.detect import detect_cards
from cluster.plan.by_node import Spread, cards_on, spread
from cluster.plan.placement import Placement
from cluster.plan.planner import plan_recipe
from cluster.ray_runtime import APP_NAME
from configs.load import load
from configs.schema import LlamaCppModel, Model, Recipe, VllmModel
from serve_app.access.api_keys import Key, read_environment_keys
from serve_app.access.replica_counts import ReplicaCounts
from serve_app.assignment import ModelAssignments, model_assignments
from serve_app.follow_nodes import FollowNodes
from serve_app.handles import ServeModels
from serve_app.http.api import create_api

NODE_LABEL = "ray.io/node-id"
HEALTH_S = 2.0
"""A replica that has died, an ingress too, is found so soon. Until then the ingresses that are left
divide the places with it: with Serve's own 10 s they refused what they had room for."""
BUSY = 0.8
"""Share of a replica's calls above which another one is wanted. No more may be let in than can run, so
that it has to be less than all."""
UPSCALE_S = 5.0
"""Where a recipe has replicas follow the load: so long must it last. Serve's own is 30 s."""
UNBOUNDED = 10_000
"""Serve wants a number of replicas at most, where only the nodes bound it."""
UNEVEN = 2
NODE_LOST_S = 10.0
"""A node that is away for longer is not waited for."""
INGRESS = "ingress"
"""The deployment of the HTTP entry."""
ALIVE = {"RUNNING", "RECOVERING", "UPDATING", "PENDING_MIGRATION"}
"""States of replicas that answer. A controller that has died finds all of them again as RECOVERING."""
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
    follow_nodes: bool = True
    """Whether models get more and fewer replicas as nodes join and leave the cluster."""
    replan: int = 0
    """Another number has the recipe planned anew, and its keys read. Serve builds an application again
    only where these settings differ."""
    ingresses: int = Field(1, ge=1)
    """Replicas of the HTTP entry, on nodes of their own where there are so many when it is deployed."""

    @model_validator(mode="after")
    def _one_of_them(self) -> "BuildArgs":
        if (self.config is None) == (self.recipe is None):
            raise ValueError("give either config=PATH or recipe={...}")
        return self


class ModelReplica(Replica):
    """A Replica as Serve constructs and ends it. It takes a free seat of its model on its node."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, name: str, model: Model, queue: int, model_assignments: ModelAssignments | None
    ) -> None:
        ray_context, seat = ray.get_runtime_context(), None
        if model_assignments is not None:
            app = serve.get_replica_context().app_name
            seats = await model_assignments.on(ray_context.get_node_id(), app, ray_runtime.detection)
            seat = await claim_assignment(name, seats, ray_context.current_actor)
            if seat.gpus is not None:  # Ray may have chosen another card than the plan
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, seat.gpus))
        super().__init__(name, model, queue, seat, ray_context.current_actor)
        await self.start()

    async def __del__(self) -> None:
        if hasattr(self, "_engine"):
            await self.stop()


class Ingress:
    """The HTTP entry: the API over handles to the models."""

    def __init__(
        self, recipe: Recipe, handles: dict[str, DeploymentHandle[Any]], env_keys: tuple[Key, ...]
    ) -> None:
        self._app: str = serve.get_replica_context().app_name
        self._models = ServeModels(handles)
        self._names = {f"model-{name}": name for name in recipe.models}
        self._api = create_api(recipe, self._models, env_keys, self._count)

    async def _count(self) -> ReplicaCounts:
        running = await _running(self._app, self._names)
        self._models.note_running(running.models)
        return running

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._api


async def _running(app: str, names: Mapping[str, str]) -> ReplicaCounts:
    """The replicas of an application that run. names: of the models, by deployment."""
    status = await asyncio.to_thread(serve.status)
    deployments = status.applications[app].deployments
    counts = {
        name: sum(n for state, n in each.replica_states.items() if state in ALIVE)
        for name, each in deployments.items()
    }
    return ReplicaCounts(
        {names[n]: count for n, count in counts.items() if n in names}, counts[INGRESS]
    )


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
        ray_runtime.await_gpus(args.min_gpus)
    placement = plan_recipe(recipe, cards_of(recipe), find=weights_of)
    models = {
        name: _model_app(name, recipe, placement, follow=args.follow_nodes) for name in recipe.models
    }
    ingress: Any = serve.deployment(
        serve.ingress()(Ingress),
        name=INGRESS,
        max_ongoing_requests=INGRESS_REQUESTS,
        health_check_period_s=HEALTH_S,
        ray_actor_options={"num_cpus": 0},
        **_apart(args.ingresses),
    )
    # As hashes, and from here: an ingress may start again where the variable is not set.
    return cast("Application", ingress.bind(recipe, models, read_environment_keys()))


def _apart(ingresses: int) -> dict[str, Any]:
    """How many ingresses, and what has Serve spread them. It would put one that comes again anywhere,
    and a node that is lost would take all of them with it."""
    options = {"num_replicas": ingresses}
    if ingresses > 1:
        nodes = len(ray_runtime.alive_nodes()) if ray.is_initialized() else 1
        options["max_replicas_per_node"] = math.ceil(ingresses / nodes)
    return options


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
        "args": {"recipe": settings} | ({"ingresses": ingresses} if ingresses > 1 else {}),
    }
    return {
        "proxy_location": "HeadOnly" if ingresses == 1 else "EveryNode",
        "http_options": {"host": host, "port": port},
        "applications": [application],
    }


def cards_of(recipe: Recipe) -> list[Card]:
    """The cards that the recipe names, or else those of the cluster, or of this machine."""
    found = ray_runtime.cards() if ray.is_initialized() else detect_cards()
    node = next((card.node for card in found), "")
    if recipe.cards.names:
        return [replace(card_by_name(name, n), node=node) for n, name in enumerate(recipe.cards.names)]
    return found


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


def _model_app(name: str, recipe: Recipe, plan: Placement, *, follow: bool) -> Application:
    model, where = recipe.models[name], spread(plan, name)
    # The ingress keeps the recipe's bound over all replicas, between which the router may be uneven.
    queue = UNEVEN * recipe.queue_limit(name)
    options: dict[str, Any] = {"ray_actor_options": {"num_cpus": 0}}
    options |= _by_load(model, model.replicas.min) or {"num_replicas": model.replicas.min}
    seats = None
    if where is not None:
        seats = model_assignments(recipe, plan, where)
        options = _placed(plan, where, model, follow=follow)
    deployment: Any = serve.deployment(
        ModelReplica,
        name=f"model-{name}",
        max_ongoing_requests=model.concurrency + queue + SHORT_CALLS,
        health_check_period_s=HEALTH_S,
        **options,
    )
    return cast("Application", deployment.bind(name, model, queue, seats))


def _placed(plan: Placement, where: Spread, model: Model, *, follow: bool) -> dict[str, Any]:
    """What makes Ray and Serve place a model's replicas where its seats are."""
    seats = [seat for seats in where.seats.values() for seat in seats]
    first = seats[0]
    card = plan.cards[first.card].card
    on_gpu = card.kind == "gpu"
    # Fractions are cut, not rounded, to the four digits that Ray keeps, so they add up to <= 1.
    amount = math.floor(first.member.fraction * (1 if on_gpu else card.cores) * 10_000) / 10_000
    actor: dict[str, Any] = {"num_cpus": 0, "num_gpus": amount} if on_gpu else {"num_cpus": amount}
    options: dict[str, Any] = {"ray_actor_options": actor}
    if follow or len(where.seats) > 1:
        options["max_replicas_per_node"] = where.most_on_a_node
        if where.allowed is not None:
            actor["label_selector"] = {NODE_LABEL: where.allowed}
    if model.replicas.max is None and follow:
        return options | {"autoscaling_config": _following(plan, where, len(seats))}
    return options | (_by_load(model, len(seats)) or {"num_replicas": len(seats)})


def _by_load(model: Model, count: int) -> dict[str, Any] | None:
    """Replicas that follow the load, `count` at first, where the recipe leaves that open."""
    least, most = model.replicas.min, model.replicas.max
    if most is None or least == most:
        return None
    scaling = AutoscalingConfig(
        min_replicas=least,
        max_replicas=most,
        initial_replicas=count,
        target_ongoing_requests=BUSY * model.concurrency,
        upscale_delay_s=UPSCALE_S,
    )
    return {"autoscaling_config": scaling}


def _following(plan: Placement, where: Spread, count: int) -> AutoscalingConfig:
    pattern = cards_on(plan, where.pattern)
    gpus = sum(len(card.indices) for card in pattern if card.kind == "gpu")
    known = {node: len(seats) for node, seats in where.seats.items()}
    arguments = {
        "seats": known | dict.fromkeys(where.others, 0),
        "joining": len(where.joining),
        "resource": "GPU" if gpus else "CPU",
        "amount": gpus or pattern[0].cores,
    }
    policy: Any = AutoscalingPolicy
    policy = policy(policy_function=FollowNodes, policy_kwargs=arguments)
    return AutoscalingConfig(
        min_replicas=1,
        max_replicas=UNBOUNDED,
        initial_replicas=count,
        policy=policy,
        upscale_delay_s=0,
        downscale_delay_s=NODE_LOST_S,
    )
