"""The Serve application that a job's calls go to: one that runs already, or the job's own.

A job's own is named after its run folder. So a job that was killed finds what it left behind and takes
it down at last, and two jobs never end one another's models.
"""

import asyncio
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import runtime
from cluster.residency import Verb
from configs.schema import Model, Recipe
from jobs.identity import model_identity

if TYPE_CHECKING:
    from serve_app.ask import HandleModels

JOB_APP = "slimmoa-job-"


class GraphRefused(RuntimeError):
    """The cluster's application does not suit the job; the message says what differs."""


@dataclass(frozen=True, slots=True)
class Graph:
    """Where a job's calls go. room: the most calls to each model at once; keepers: of the cards."""

    models: "HandleModels"
    room: Mapping[str, int]
    keepers: Sequence[Any]

    async def swaps(self) -> int:
        """How often an engine was woken since the application started."""
        orders = await asyncio.gather(*(keeper.orders.remote() for keeper in self.keepers))
        return sum(n for each in orders for (_, verb), n in each.items() if verb == Verb.WAKE)


@contextmanager
def graph(
    recipe: Recipe,
    folder: Path,
    *,
    in_flight: int,
    verbose: bool,
    say: Callable[[str], None],
) -> Iterator[Graph]:
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
    try:
        if found is None:
            say(f"starting the models: {', '.join(recipe.models)}")
            _deploy(recipe, own, in_flight)
        else:
            say(f"using the running application {found}")
        yield asyncio.run(_reached(recipe, found or own, shared=found not in (None, own)))
    finally:
        runtime.disconnect(own if found in (None, own) else None, local=local)


def _connected(own: str, *, verbose: bool) -> tuple[bool, str | None]:
    """Whether a cluster was started for us, and the name of the application to use, if one runs."""
    address = os.environ.get("RAY_ADDRESS")
    for known in [address] if address else runtime.local_clusters():
        runtime.connect(known, verbose=verbose)
        names = runtime.applications()
        found = next((name for name in (runtime.APP_NAME, own) if name in names), None)
        others = [name for name in names if name.startswith(JOB_APP) and name != own]
        if found is None and others and address:
            runtime.disconnect(None, local=False)
            raise GraphRefused(f"another job's application, {others[0]}, runs on this cluster")
        if found is not None or address:
            return False, found
        runtime.disconnect(None, local=False)
    runtime.connect(None, verbose=verbose)
    return True, None


def _deploy(recipe: Recipe, name: str, in_flight: int) -> None:
    from serve_app.app import BuildArgs, build

    places = max(sum(p.samples for p in layer.proposers) for layer in recipe.layers)
    queue = min(100_000, max(recipe.limits.queue, in_flight * places))
    limits = recipe.limits.model_copy(update={"queue": queue})
    longer = recipe.model_copy(update={"limits": limits})
    runtime.deploy(build(BuildArgs(recipe=longer)), name, None)


async def _reached(recipe: Recipe, name: str, *, shared: bool) -> Graph:
    """The application's models, found to be the recipe's. shared: others may use it too."""
    from ray import serve

    from serve_app.ask import HandleModels

    deployments = serve.status().applications[name].deployments
    replicas = {
        deployment: sum(n for state, n in status.replica_states.items() if state == "RUNNING")
        for deployment, status in deployments.items()
    }
    missing = [model for model in recipe.models if f"model-{model}" not in deployments]
    if missing:
        raise GraphRefused(f"the running application {name} has no model {', '.join(missing)}")
    handles = {m: serve.get_deployment_handle(f"model-{m}", name) for m in recipe.models}
    models = HandleModels(handles, patience_s=math.inf)
    room = {}
    for model, wanted in recipe.models.items():
        running, queue = await models.settings(model)
        _check_same(name, model, wanted, running)
        # Half of a queue that is shared stays free, so that people can still ask.
        places = running.concurrency + (queue // 2 if shared else queue)
        room[model] = max(1, replicas[f"model-{model}"]) * places
    keepers = [n for n in deployments if n.startswith("keeper-")]
    return Graph(models, room, [serve.get_deployment_handle(keeper, name) for keeper in keepers])


def _check_same(name: str, model: str, wanted: Model, running: Model) -> None:
    other = model_identity(wanted) != model_identity(running)
    if other or wanted.context_tokens != running.context_tokens:
        what = "engine, weights or settings" if other else "context_tokens"
        raise GraphRefused(
            f"the running application {name} has another model {model!r} than the recipe ({what} "
            "differ); end it, or give the recipe that it serves"
        )
