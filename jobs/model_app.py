"""The Serve application that a job's calls go to: one that runs already, or the job's own.

A job's own is named after its run folder. So a run ends what a killed job of it has left, and two jobs
never end one another's models.
"""

import asyncio
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.keeper.replica_turns import CONTACT_S
from cluster import ray_runtime
from cluster.residency.messages import Verb
from configs.errors import UserError
from configs.schema import Model, Recipe
from jobs.identity import model_identity

if TYPE_CHECKING:
    from serve_app.handles import ServeModels

JOB_APP = "slimmoa-job-"


class ModelAppMismatch(UserError):
    """The cluster's application does not suit the job; the message says what differs."""


class Swaps:
    """Counts how often the keepers of an application had an engine woken, since it was first asked.

    A keeper counts from its own start, so a new one from 0. What one that is away has done is counted
    when it is there again.
    """

    def __init__(self, keepers: Sequence[Any]) -> None:
        self._keepers = keepers
        self._seen: list[int | None] = [None] * len(keepers)
        self._sum = 0

    async def __call__(self) -> int:
        """So far. Does not fail, and waits no longer than CONTACT_S."""
        found = await asyncio.gather(*(_wakes(keeper) for keeper in self._keepers))
        for n, (wakes, before) in enumerate(zip(found, self._seen, strict=True)):
            if wakes is None:
                continue
            if before is not None:
                self._sum += wakes - before if wakes >= before else wakes
            self._seen[n] = wakes
        return self._sum


async def _wakes(keeper: Any) -> int | None:
    """How many a keeper ordered since its start; None if it is out of reach."""
    from ray.exceptions import RayError

    try:
        async with asyncio.timeout(CONTACT_S):
            orders: dict[tuple[str, str], int] = await keeper.orders.remote()
    except (RayError, TimeoutError):
        return None
    return sum(count for (_, verb), count in orders.items() if verb == Verb.WAKE)


@dataclass(frozen=True, slots=True)
class ModelApp:
    """Where a job's calls go. room: the most calls to each model at once."""

    models: "ServeModels"
    room: Mapping[str, int]
    swaps: Swaps


@contextmanager
def graph(
    recipe: Recipe,
    folder: Path,
    *,
    in_flight: int,
    verbose: bool,
    say: Callable[[str], None],
) -> Iterator[ModelApp]:
    """The models of a recipe, ready.

    $RAY_ADDRESS names the cluster, as it does in a Ray job. Without it an application that runs on
    this machine is used, or else a cluster is started and ended.

    folder: of the run; in_flight: answers at once, for which an own application makes its queues long
    enough; say: gets what is being done, for people.

    Raises:
        GraphRefused: the running application has other models than the recipe.
        ConnectionError: there is no cluster at $RAY_ADDRESS.
        RuntimeError: the models cannot start.
        RecipeError, DoesNotFit, WeightsError: as `serve_app.app.build`.
    """
    own = JOB_APP + hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    local, found = _connected(own, verbose=verbose)
    shared = found not in (None, own)
    try:
        if not shared:
            if found is not None:
                say("ending the models that an earlier job of this run has left")
                _end(own)
            say(f"starting the models: {', '.join(recipe.models)}")
            _deploy(recipe, own, in_flight, follow_nodes=not local)
        else:
            say(f"using the running application {found}")
        yield asyncio.run(_reached(recipe, found or own, shared=shared))
    finally:
        ray_runtime.disconnect(None if shared else own, local=local)


def _connected(own: str, *, verbose: bool) -> tuple[bool, str | None]:
    """Whether a cluster was started for us, and the name of the application to use, if one runs."""
    address = os.environ.get("RAY_ADDRESS")
    for known in [address] if address else ray_runtime.local_clusters():
        ray_runtime.connect(known, verbose=verbose)
        names = ray_runtime.applications()
        found = next((name for name in (ray_runtime.APP_NAME, own) if name in names), None)
        others = [name for name in names if name.startswith(JOB_APP) and name != own]
        if found is None and others and address:
            ray_runtime.disconnect(None, local=False)
            raise ModelAppMismatch(f"another job's application, {others[0]}, runs on this cluster")
        if found is not None or address:
            return False, found
        ray_runtime.disconnect(None, local=False)
    ray_runtime.connect(None, verbose=verbose)
    return True, None


def _end(own: str) -> None:
    """End what a killed job has left, in whatever state it is.

    Nothing tells its models that their caller is gone: they would work off all calls that wait, hours
    of them perhaps, and Serve would let them go on with it for a while even when it ends them.
    """
    import ray
    from ray import serve

    for actor in ray.util.list_named_actors(all_namespaces=True):
        if own in actor["name"]:
            with suppress(ValueError):  # it has just ended
                ray.kill(ray.get_actor(**actor))
    serve.delete(own)


def _deploy(recipe: Recipe, name: str, in_flight: int, *, follow_nodes: bool) -> None:
    from serve_app.app import BuildArgs, build

    most = in_flight * max(recipe.samples)
    queue = min(100_000, max(most, *map(recipe.queue_limit, recipe.models)))
    limits = recipe.limits.model_copy(update={"queue": queue})
    longer = recipe.model_copy(update={"limits": limits})
    ray_runtime.deploy(build(BuildArgs(recipe=longer, follow_nodes=follow_nodes)), name, None)


async def _reached(recipe: Recipe, name: str, *, shared: bool) -> ModelApp:
    """The application's models, found to be the recipe's. shared: others may use it too."""
    from ray import serve

    from actors.keeper.ray_keeper import keepers
    from serve_app.handles import ServeModels

    deployments = serve.status().applications[name].deployments
    replicas = {
        deployment: sum(n for state, n in status.replica_states.items() if state == "RUNNING")
        for deployment, status in deployments.items()
    }
    missing = [model for model in recipe.models if f"model-{model}" not in deployments]
    if missing:
        raise ModelAppMismatch(f"the running application {name} has no model {', '.join(missing)}")
    handles = {m: serve.get_deployment_handle(f"model-{m}", name) for m in recipe.models}
    models = ServeModels(handles, patience_s=math.inf)
    room = {}
    for model, wanted in recipe.models.items():
        running, queue = await models.settings(model)
        _check_same(name, model, wanted, running)
        # Half of a queue that is shared stays free, so that people can still ask.
        places = running.concurrency + (queue // 2 if shared else queue)
        room[model] = max(1, replicas[f"model-{model}"]) * places
    return ModelApp(models, room, Swaps(list(keepers(name).values())))


def _check_same(name: str, model: str, wanted: Model, running: Model) -> None:
    other = model_identity(wanted) != model_identity(running)
    if other or wanted.context_tokens != running.context_tokens:
        what = "engine, weights or settings" if other else "context_tokens"
        raise ModelAppMismatch(
            f"the running application {name} has another model {model!r} than the recipe ({what} "
            "differ); end it, or give the recipe that it serves"
        )
