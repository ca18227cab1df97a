"""Chooses the Serve application that a job uses, and checks whether the application suits the job.

These functions decide by names and settings alone and do not call Ray. A job's own application is
named after its run folder. So a run can end what a killed job of the same run has left, and two jobs
never end each other's models.
"""

import hashlib
from collections.abc import Collection
from pathlib import Path

from cluster.ray_runtime import APP_NAME
from configs.errors import UserError
from configs.schema import Model, Recipe, VllmModel
from jobs.identity import adapter_identity, model_identity
from serve_app.deployment_names import deployment_name

JOB_APP = "slimmoa-job-"
"""How the name of every job's own application begins."""


class ModelAppMismatch(UserError):
    """The cluster's application does not suit the job; the message says what differs."""


def app_name(folder: Path) -> str:
    """The name of the application that the jobs of a run start for themselves."""
    return JOB_APP + hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]


def choose_app(running: Collection[str], own: str, *, must_use_cluster: bool) -> str | None:
    """The name of the application of a cluster that a job has to use or to end.

    1. The application of `slimmoa serve` runs: the job uses this application.
    2. The job's own application runs, because a killed job left it: the job ends this application.
    3. Another job's application occupies the cluster: the job uses another cluster, unless the job must
       use this cluster.

    Args:
        running: Names of the cluster's applications.
        own: Name of the job's own application.
        must_use_cluster: True if the user named this cluster, so that the job may use no other cluster.

    Returns:
        The name in the cases 1 and 2; None in case 3, or if no such application runs.

    Raises:
        ModelAppMismatch: case 3, and the job must use this cluster.
    """
    for name in (APP_NAME, own):  # 1, 2
        if name in running:
            return name
    others = [name for name in running if name.startswith(JOB_APP)]
    if others and must_use_cluster:  # 3
        raise ModelAppMismatch(f"another job's application, {others[0]}, runs on this cluster")
    return None


def is_app_replica(app: str, actor: str) -> bool:
    """Whether an actor is a replica of an application, by the name that Serve gives it:
    `SERVE_REPLICA::APP#DEPLOYMENT#ID`."""
    return actor.startswith(f"SERVE_REPLICA::{app}#")


def require_models(recipe: Recipe, name: str, deployments: Collection[str]) -> None:
    """Raise ModelAppMismatch if the application `name` has no deployment for a model of the recipe."""
    missing = [model for model in recipe.models if deployment_name(model) not in deployments]
    if missing:
        raise ModelAppMismatch(f"the running application {name} has no model {', '.join(missing)}")


def require_same(name: str, model: str, wanted: Model, running: Model) -> None:
    """Raise ModelAppMismatch if the application `name` runs another model than the wanted model."""
    other = model_identity(wanted) != model_identity(running)
    if isinstance(wanted, VllmModel) and isinstance(running, VllmModel):
        # The running model may have further adapters.
        other = other or any(
            name not in running.adapters
            or adapter_identity(wanted, name) != adapter_identity(running, name)
            for name in wanted.adapters
        )
    if other or wanted.context_tokens != running.context_tokens:
        what = "engine, weights or settings" if other else "context_tokens"
        raise ModelAppMismatch(
            f"the running application {name} has another model {model!r} than the recipe ({what} "
            "differ); end it, or give the recipe that it serves"
        )
