"""The classes that Serve runs, as bare classes: the builder in `app.py` makes deployments of them.

The classes add to `Replica` and to the HTTP API only what Serve needs.
"""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from actors.keeper.registration import claim_assignment
from actors.replica import Replica
from cluster import ray_runtime
from configs.schema import Model, Recipe
from serve_app.access.api_keys import Key
from serve_app.access.replica_counts import ReplicaCounts
from serve_app.assignment import ModelAssignments
from serve_app.follow_load import CALLS
from serve_app.handles import ServeModels
from serve_app.http.api import create_api

INGRESS = "ingress"
"""Name of the deployment that has the HTTP API."""
ALIVE = {"RUNNING", "RECOVERING", "UPDATING", "PENDING_MIGRATION"}
"""Serve's states of replicas that answer calls. After a death of Serve's controller, Serve lists all
replicas as RECOVERING."""


def deployment_name(model: str) -> str:
    """Name of a model's deployment."""
    return f"model-{model}"


class ModelReplica(Replica):
    """A Replica as Serve constructs and ends it. If its model takes a card, a new replica claims one of
    the model's assignments on the replica's node."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, name: str, model: Model, queue: int, assignments: ModelAssignments | None
    ) -> None:
        context, assignment = ray.get_runtime_context(), None
        if assignments is not None:
            app = serve.get_replica_context().app_name
            detect = ray_runtime.detect_on_node
            here = await assignments.on_node(context.get_node_id(), app, detect)
            assignment = await claim_assignment(name, here, context.current_actor)
            if assignment.gpus is not None:  # Ray may have chosen another GPU than the plan
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, assignment.gpus))
        super().__init__(name, model, queue, assignment, context.current_actor)
        await self.start()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Serve's hook: what the policy `FollowLoad` reads of this replica."""
        stats = await self.stats()
        return {CALLS: stats.in_flight + stats.waiting}

    async def __del__(self) -> None:
        if hasattr(self, "_engine"):
            await self.stop()


class Ingress:
    """The HTTP API, which calls the models through Serve's handles."""

    def __init__(
        self, recipe: Recipe, handles: dict[str, DeploymentHandle[Any]], env_keys: tuple[Key, ...]
    ) -> None:
        self._app: str = serve.get_replica_context().app_name
        self._models = ServeModels(handles)
        self._deployments = {deployment_name(name): name for name in recipe.models}
        self._api = create_api(recipe, self._models, env_keys, self._refresh_counts)

    async def _refresh_counts(self) -> ReplicaCounts:
        """Count the replicas, and tell the handles which models have replicas that answer."""
        counts = await count_replicas(self._app, self._deployments)
        self._models.note_running(counts.models)
        return counts

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._api


async def count_replicas(app: str, deployments: Mapping[str, str]) -> ReplicaCounts:
    """Count the replicas of an application that answer calls: of each model, and of the ingress.

    Args:
        app: name of the Serve application.
        deployments: the name of each model, by the name of the model's deployment.
    """
    status = await asyncio.to_thread(serve.status)
    counts = {
        name: sum(n for state, n in each.replica_states.items() if state in ALIVE)
        for name, each in status.applications[app].deployments.items()
    }
    models = {deployments[name]: count for name, count in counts.items() if name in deployments}
    return ReplicaCounts(models, counts[INGRESS])
