"""The Ray Serve graph: one deployment per model, and the ingress that mixes them.

The only file that makes deployments. Classes here add to the bare ones just what Serve needs.
No `from __future__ import annotations` here: Serve reads the builder's annotation.
"""

import math
from typing import Any, cast

import ray
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, model_validator
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from actors.replica import Replica
from cluster.card import this_machine
from cluster.planner import CardShare, share_out
from configs.load import load
from configs.schema import Model, Recipe
from serve_app.api import create_api
from serve_app.ask import HandleModels

APP_NAME = "slimmoa"
INGRESS_REQUESTS = 4096  # Serve's own default is 5; queues are bounded where the engines are
SHORT_CALLS = 64  # room beside the queue for counting tokens and for readiness


class BuildArgs(BaseModel):
    """Arguments of the builder: a recipe by file (`config=configs/tiny_cpu.yaml`), or in full."""

    model_config = ConfigDict(extra="forbid")

    config: str | None = None
    """Path of a recipe, or a preset's name."""
    recipe: Recipe | None = None
    """The recipe itself, as `slimmoa export` writes it."""

    @model_validator(mode="after")
    def _one_of_them(self) -> "BuildArgs":
        if (self.config is None) == (self.recipe is None):
            raise ValueError("give either config=PATH or recipe={...}")
        return self


class ModelReplica(Replica):
    """A Replica as Serve constructs and ends it."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, name: str, model: Model, threads: int, queue: int
    ) -> None:
        super().__init__(name, model, threads, queue)
        await self.start()

    async def __del__(self) -> None:
        if hasattr(self, "_engine"):
            await self.stop()


class Ingress:
    """The HTTP entry: the API over handles to the models."""

    def __init__(self, recipe: Recipe, handles: dict[str, DeploymentHandle[Any]]) -> None:
        self._api = create_api(recipe, HandleModels(handles))

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._api


def build(args: BuildArgs) -> Application:
    """The graph of a recipe, for `serve run serve_app.app:build config=configs/X.yaml`."""
    recipe = args.recipe or load(args.config or "")
    cores = _cores()
    card = this_machine()
    shares = share_out(recipe, type(card)(card.name, card.total_bytes, cores))
    models = {
        name: _model_app(name, model, shares[name], cores, recipe.limits.queue)
        for name, model in recipe.models.items()
    }
    ingress: Any = serve.deployment(
        serve.ingress()(Ingress),
        name="ingress",
        max_ongoing_requests=INGRESS_REQUESTS,
        ray_actor_options={"num_cpus": 0},
    )
    return cast("Application", ingress.bind(recipe, models))


def serve_config(recipe: Recipe, host: str, port: int) -> dict[str, Any]:
    """The recipe as a Serve config file's content, complete in itself, for `serve deploy`."""
    settings = recipe.model_dump(mode="json", exclude_defaults=True)
    application = {
        "name": APP_NAME,
        "route_prefix": "/",
        "import_path": "serve_app.app:build",
        "args": {"recipe": settings},
    }
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": host, "port": port},
        "applications": [application],
    }


def _model_app(name: str, model: Model, share: CardShare, cores: int, queue: int) -> Application:
    # Fractions are cut, not rounded, to the four digits that Ray keeps, so that they add up to <= 1.
    num_cpus = math.floor(share.fraction * cores * 10_000) / 10_000
    deployment: Any = serve.deployment(
        ModelReplica,
        name=f"model-{name}",
        num_replicas=model.replicas,
        max_ongoing_requests=model.concurrency + queue + SHORT_CALLS,
        ray_actor_options={"num_cpus": num_cpus},
    )
    return cast("Application", deployment.bind(name, model, share.cores, queue))


def _cores() -> int:
    """Cores of this machine that Ray may give out: it can have been started with fewer."""
    cores = this_machine().cores
    if ray.is_initialized():
        alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        nodes = [node["Resources"].get("CPU", 0) for node in alive]
        cores = min(cores, int(max(nodes, default=cores)) or cores)
    return cores
