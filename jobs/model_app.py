"""The Serve application that answers a job's calls: a running application, or the job's own."""

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from actors.keeper.protocol import CONTACT_S
from cluster import ray_runtime
from cluster.ray_address import NoCluster
from cluster.ray_applications import kill_application
from cluster.residency.messages import BRINGS_BACK
from cluster.waiting import tell_waiting
from configs.schema import Recipe
from jobs.app_choice import (
    app_name,
    choose_app,
    require_models,
    require_same,
    suits,
)
from serve_app.deployment_names import deployment_name
from serve_app.local_servers import find_servers
from serve_app.mixture.models import Models

LONGEST_QUEUE = 100_000
"""Most calls that may wait at one replica of a job's own application."""


NEIGHBOUR_S = 2.0
"""Longest time, in seconds, in which the cluster of a server on this machine has to answer."""


class SwapCounter:
    """Counts the swaps of an application: how often its keepers ordered an engine to wake.

    The count begins at 0 with the first call of this object. Each keeper itself counts from its start,
    so a restarted keeper counts from 0. Swaps of a keeper that is out of reach are added once the
    keeper can be reached again.
    """

    def __init__(self, keepers: Sequence[Any]) -> None:
        self._keepers = keepers
        self._last_counts: list[int | None] = [None] * len(keepers)
        self._sum = 0

    async def __call__(self) -> int:
        """The swaps so far. The call never fails, and takes at most CONTACT_S seconds."""
        counts = await asyncio.gather(*(_count_wakes(keeper) for keeper in self._keepers))
        for n, (count, last) in enumerate(zip(counts, self._last_counts, strict=True)):
            if count is None:
                continue
            if last is not None:
                self._sum += count - last if count >= last else count
            self._last_counts[n] = count
        return self._sum


async def _count_wakes(keeper: Any) -> int | None:
    """The wake orders of a keeper since its start; None if the keeper is out of reach."""
    from ray.exceptions import RayError

    try:
        async with asyncio.timeout(CONTACT_S):
            orders: dict[tuple[str, str], int] = await keeper.order_counts.remote()
    except (RayError, TimeoutError):
        return None
    return sum(count for (_, verb), count in orders.items() if verb in BRINGS_BACK)


@dataclass(frozen=True, slots=True)
class ModelApp:
    """Models that are ready for a job's calls."""

    models: Models

    call_limits: Mapping[str, int]
    """The most calls to each model at once."""

    swaps: SwapCounter


@contextmanager
def open_model_app(
    recipe: Recipe,
    folder: Path,
    *,
    in_flight: int,
    verbose: bool,
    say: Callable[[str], None],
) -> Iterator[ModelApp]:
    """Find or start the models of a recipe. At the end of the block, end the models that were started.

    $RAY_ADDRESS names the cluster, as in a Ray job. If the variable is not set, a `slimmoa serve` of
    this user on this machine is used if it serves the recipe's models. If there is no such server, a
    cluster is started for the time of the block.

    Args:
        recipe: whose models are needed.
        folder: the run's folder; gives the job's own application its name.
        in_flight: most answers in work at once; the job's own application gets queues that are long
            enough for their calls.
        verbose: whether to show the logs of all processes.
        say: called at each step with a line for people.

    Raises:
        ModelAppMismatch: the application at $RAY_ADDRESS has other models than the recipe, or the
            cluster runs another job's application.
        NoCluster: no cluster at $RAY_ADDRESS can be joined.
        RuntimeError: the models cannot start.
        RecipeError, DoesNotFit, WeightsError: see `serve_app.app.build`.
    """
    own = app_name(folder)
    local = ray_runtime.environment_address() is None
    shared, ends = False, None
    try:
        with tell_waiting("Ray", say):
            local, found = _connect(recipe, own, verbose=verbose)
        shared = found not in (None, own)
        if not shared:
            ends = own
            if found is not None:
                say("ending the models that an earlier job of this run has left")
                _end_app(own)
            say(f"starting the models: {', '.join(recipe.names)}")
            with tell_waiting("the models to start", say):
                _deploy(recipe, own, in_flight, follow_nodes=not local)
        else:
            say(f"using the running application {found}")
        with tell_waiting("the models to answer", say):
            app = asyncio.run(_find_models(recipe, found or own, shared=shared))
        yield app
    except BaseException as error:
        if not isinstance(error, Exception):  # a signal: nobody waits for answers any longer
            ray_runtime.leave_at_once(ends, local=local)
            raise
        ray_runtime.disconnect(ends, local=local)
        raise
    else:
        with tell_waiting("the models to end", say):
            ray_runtime.disconnect(ends, local=local)


def _connect(recipe: Recipe, own: str, *, verbose: bool) -> tuple[bool, str | None]:
    """Connect to the cluster on which the job's models run. The first case that holds decides:

    1. $RAY_ADDRESS is set: the cluster at that address.
    2. A `slimmoa serve` of this user on this machine serves the recipe's models: its cluster. A server
       of another recipe, or one that cannot be reached, is passed over.
    3. Otherwise: a new cluster.

    Args:
        recipe: whose models are needed.
        own: name of the job's own application.
        verbose: whether to show the logs of all processes.

    Returns:
        Whether a cluster was started, and the name of the running application to use or to end. The
        name is None if no such application runs.

    Raises:
        ModelAppMismatch: another job's application runs at $RAY_ADDRESS.
        NoCluster: no cluster at $RAY_ADDRESS can be joined.
    """
    servers = [server for server in find_servers() if suits(recipe, server.recipe)]
    if address := ray_runtime.environment_address():  # 1
        ray_runtime.connect(address, verbose=verbose, named_by="RAY_ADDRESS")
        running = ray_runtime.run(ray_runtime.applications)
        here = ray_runtime.this_cluster()
        apps = [server.app for server in servers if server.cluster == here and server.app in running]
        return False, next(iter(apps), None) or choose_app(running, own)
    for server in servers:  # 2
        try:
            ray_runtime.connect(server.cluster, verbose=verbose, within_s=NEIGHBOUR_S)
        except NoCluster:
            continue
        if server.app in ray_runtime.run(ray_runtime.applications):
            return False, server.app
        ray_runtime.disconnect(None, local=False)
    ray_runtime.connect(None, verbose=verbose)  # 3
    return True, None


def _end_app(own: str) -> None:
    """End the application that a killed job has left, in whatever state the application is.

    The calls of the killed job have ended with its connections, so nothing here has to end in its own
    time, as Serve would let it.
    """
    ray_runtime.run(partial(kill_application, own))


def _deploy(recipe: Recipe, name: str, in_flight: int, *, follow_nodes: bool) -> None:
    from serve_app.app import BuildArgs, build

    most = in_flight * max(recipe.samples)
    queue = min(LONGEST_QUEUE, max(most, *map(recipe.queue_limit, recipe.models)))
    limits = recipe.limits.model_copy(update={"queue": queue})
    longer = recipe.model_copy(update={"limits": limits})
    args = BuildArgs(recipe=longer, app=name, follow_nodes=follow_nodes)
    ray_runtime.run(lambda: ray_runtime.deploy(build(args), name))


async def _find_models(recipe: Recipe, name: str, *, shared: bool) -> ModelApp:
    """The models of a running application.

    Args:
        recipe: whose models are needed.
        name: name of the application.
        shared: whether people may use the application at the same time.

    Raises:
        ModelAppMismatch: the application lacks a model, or has another model than the recipe.
    """
    from ray import serve

    from actors.keeper.ray_keeper import keepers
    from serve_app.replica_models import ReplicaModels
    from serve_app.replica_watch import watch_models

    deployments = serve.status().applications[name].deployments
    require_models(recipe, name, deployments)
    replicas = {
        deployment: sum(n for state, n in status.replica_states.items() if state == "RUNNING")
        for deployment, status in deployments.items()
    }
    watch = partial(watch_models, name, recipe.models)
    models = ReplicaModels(
        recipe.models,
        ray_runtime.this_node(),
        watch,
        adapters=recipe.adapters,
        patience_s=math.inf,
    )
    call_limits = {}
    for model, wanted in recipe.models.items():
        running = await models.settings(model)
        require_same(name, model, wanted, running.model)
        # Half of a shared application's queue stays free, so that people can still ask.
        queue = running.queue // 2 if shared else running.queue
        capacity = running.model.concurrency + queue
        call_limits[model] = max(1, replicas[deployment_name(model)]) * capacity
    # The adapters of a model share its replicas' queues.
    for model in recipe.models:
        own = [model, *(name for name, host in recipe.adapters.items() if host == model)]
        call_limits |= dict.fromkeys(own, max(1, call_limits[model] // len(own)))
    await models.close()
    return ModelApp(models, call_limits, SwapCounter(list(keepers(name).values())))
