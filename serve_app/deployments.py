"""The classes that Serve runs, as bare classes: the builder in `app.py` makes deployments of them.

The classes add to `Replica` and to the HTTP API only what Serve needs.
"""

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from fastapi import FastAPI
from prometheus_client.metrics_core import Metric
from ray import serve
from ray.serve.handle import DeploymentHandle

from actors.calls.address import Address
from actors.calls.server import CallServer
from actors.keeper.ray_keeper import card_reports, reports_by_keeper
from actors.keeper.registration import claim_assignment
from actors.private_folder import PrivateFolder
from actors.replica import Replica
from cluster import ray_runtime
from cluster.cards.detect import visible_gpus
from cluster.logs.line import Shape
from cluster.logs.setup import log_name, log_to
from configs.schema import LlamaCppModel, Model, Recipe, VllmModel
from serve_app.access.admission import admission_for
from serve_app.access.api_keys import Key
from serve_app.assignment import ModelAssignments
from serve_app.deployment_names import INGRESS
from serve_app.follow_load import CALLS
from serve_app.http.api import create_api
from serve_app.http.listener import Listener
from serve_app.log_lines import LogLines
from serve_app.metrics.server_metrics import ServerMetrics
from serve_app.observe import Observer
from serve_app.replica_models import Notice, ReplicaModels
from serve_app.replica_watch import watch_models
from serve_app.tracing.start import start_tracing

if TYPE_CHECKING:
    from serve_app.tracing.provider import Tracing

SOCKET = "calls"
"""Name of a replica's Unix socket in the replica's folder."""

OTHERS_S = 2.0
"""Seconds within which the other ingresses tell their metrics."""
AFTER_INGRESS_S = 2.0
"""Seconds that a replica drains longer than an ingress. If an application ends, all its replicas drain
at the same time, and an answer that takes too long is ended by the ingress, which can say why."""


class ModelReplica(Replica):
    """A Replica as Serve constructs and ends it. If its model takes a card, a new replica claims one of
    the model's assignments on the replica's node."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        name: str,
        model: Model,
        queue: int,
        assignments: ModelAssignments | None,
        *,
        across_nodes: bool,
        drain_s: float,
        log: Shape = "text",
    ) -> None:
        _log_to(f"model:{name}", log)
        context, assignment = ray.get_runtime_context(), None
        node = context.get_node_id()
        await _fetch_weights(name, model)
        if assignments is not None:
            app = serve.get_replica_context().app_name
            here = await assignments.on_node(node, app, ray_runtime.detect_on_node)
            assignment = await claim_assignment(name, here, context.current_actor)
            if assignment.gpus is not None:  # Ray may have chosen another GPU than the plan
                os.environ.update(visible_gpus(assignment.gpus))
        super().__init__(name, model, queue, assignment, context.current_actor)
        await self.start()
        self._drain_s = drain_s
        self._folder = PrivateFolder()
        self._server = CallServer(self)
        self._address = await self._listen(node, across_nodes=across_nodes)

    async def _listen(self, node: str, *, across_nodes: bool) -> Address:
        path = self._folder.path / SOCKET
        await self._server.listen_unix(path)
        if not across_nodes:
            return Address(node, str(path))
        host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        port = await self._server.listen_tcp(host)
        return Address(node, str(path), host, port, self._server.secret)

    def record_replica_metadata(self) -> dict[str, Any]:
        """Serve's hook: what Serve's controller tells about this replica to those who ask."""
        return self._address.to_dict()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Serve's hook: what the policy `FollowLoad` reads of this replica."""
        stats = await self.stats()
        return {CALLS: stats.in_flight + stats.waiting}

    async def __del__(self) -> None:
        if hasattr(self, "_server"):
            await self._server.drain(self._drain_s + AFTER_INGRESS_S)
        if hasattr(self, "_folder"):
            self._folder.remove()
        if hasattr(self, "_engine"):
            await self.stop()


def _log_to(process: str, shape: Shape) -> None:
    """Send this process's log lines to the file of the application on this node."""
    if not ray.is_initialized():  # in tests
        return
    app = serve.get_replica_context().app_name
    log_to(ray_runtime.log_folder() / log_name(app), process, shape)


async def _fetch_weights(name: str, model: Model) -> None:
    """Fetch what the engine reads, before the replica asks for a card: a download takes minutes, and
    whoever shares the card would wait.

    Raises:
        WeightsError: no source delivered the weights.
    """
    if isinstance(model, LlamaCppModel | VllmModel):
        from actors.weights.lookup import bring_here  # loads the Hub's client, which others do not need

        await asyncio.to_thread(bring_here, name, model)


class Ingress:
    """The HTTP API, which calls the models at their replicas' sockets.

    Args:
        recipe: what to serve.
        handles: Serve's handle of each model. They tell Serve that the models belong to the
            application; no call goes over them.
        env_keys: see `Authenticator`.
        listen: host and port where the ingress listens itself, or None if Serve's proxy brings the
            requests.
        log: the shape of the log's lines.
        tracing: see `tracing_variables`; None if no traces are sent.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        recipe: Recipe,
        handles: Mapping[str, DeploymentHandle[Any]],
        env_keys: tuple[Key, ...],
        listen: tuple[str, int] | None,
        log: Shape = "text",
        tracing: Mapping[str, str] | None = None,
    ) -> None:
        _log_to("ingress", log)
        self._drain_s = recipe.limits.drain_s
        self._tracing = None if tracing is None else start_tracing(tracing)
        self._ingresses = 1
        self._admission = admission_for(recipe)
        self._models = ReplicaModels(
            handles,
            ray.get_runtime_context().get_node_id(),
            self._watch,
            adapters=recipe.adapters,
            is_busy=lambda: self._admission.in_work > 0,
            on_change=self._set_counts,
        )
        context = serve.get_replica_context()
        app = context.app_name
        watch = partial(card_reports, app)
        observers: list[Observer] = [LogLines(recipe)]
        if self._tracing is not None:
            observers.append(self._tracing.observer(recipe))
        self._number = context.rank.rank
        self._metrics = ServerMetrics(
            recipe,
            self._number,
            self._models.all_stats,
            partial(reports_by_keeper, app),
            self._ask_ingresses,
        )
        self._api = create_api(
            recipe,
            self._models,
            env_keys,
            self._admission,
            watch,
            observers,
            metrics=self._metrics,
        )
        self._models.start()
        self._listener: Listener | None = None
        if listen is not None:
            self._listener = Listener(self._api, *listen, head_timeout_s=recipe.limits.read_timeout_s)
            await self._listener.start()

    async def _watch(self, notice: Notice) -> None:
        def count_ingresses(count: int) -> None:
            self._ingresses = count
            self._set_counts()

        app = serve.get_replica_context().app_name
        await watch_models(app, self._models.names, notice, count_ingresses)

    def _set_counts(self) -> None:
        self._admission.set_counts(self._models.counts, self._ingresses)

    async def own_metrics(self) -> tuple[str, list[Metric]]:
        """The number of this ingress, and its own metrics: for the other ingresses."""
        return str(self._number), await asyncio.to_thread(self._metrics.own)

    async def _ask_ingresses(self) -> dict[str, list[Metric] | None]:
        """The metrics of the other ingresses by their number; None for those that do not answer."""
        if self._ingresses == 1:
            return {}
        handle = serve.get_deployment_handle(INGRESS, serve.get_replica_context().app_name)
        found: dict[str, list[Metric] | None] = dict.fromkeys(map(str, range(self._ingresses)))
        with suppress(TimeoutError):
            answers = handle.broadcast("own_metrics").results_async(
                timeout_s=OTHERS_S, return_exceptions=True
            )
            found |= dict(each for each in await answers if not isinstance(each, BaseException))
        found.pop(str(self._number), None)
        return found

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._api

    async def __del__(self) -> None:
        listener: Listener | None = getattr(self, "_listener", None)
        if listener is not None:
            await listener.stop(self._drain_s)
        if hasattr(self, "_models"):
            await self._models.close()
        tracing: Tracing | None = getattr(self, "_tracing", None)
        if tracing is not None:
            await asyncio.to_thread(tracing.close)
