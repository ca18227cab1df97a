"""Chooses the Serve application that a job uses, and checks whether the application suits the job.

These functions decide by names and settings alone and do not call Ray. A job's own application is
named after its run folder. So a run can end what a killed job of the same run has left, and two jobs
never end each other's models.
"""

import hashlib
from collections.abc import Collection
from pathlib import Path

from cluster.ray_runtime import APP_NAME, SERVED
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


def choose_app(running: Collection[str], own: str) -> str | None:
    """The name of the application that a job has to use or to end on a cluster that the user named.

    1. An application of `slimmoa serve`, or of an exported file, runs: the job uses this application.
    2. The job's own application runs, because a killed job left it: the job ends this application.
    3. Another job's application occupies the cluster.

    Args:
        running: Names of the applications of the cluster that the user named.
        own: Name of the job's own application.

    Returns:
        The name in the cases 1 and 2; None if no such application runs.

    Raises:
        ModelAppMismatch: case 3.
    """
    served = [name for name in sorted(running) if name.startswith(SERVED)]
    for name in (APP_NAME, *served, own):  # 1, 2
        if name in running:
            return name
    others = [name for name in running if name.startswith(JOB_APP)]
    if others:  # 3
        raise ModelAppMismatch(f"another job's application, {others[0]}, runs on this cluster")
    return None


def suits(wanted: Recipe, served: Recipe) -> bool:
    """Whether an application that serves `served` has all models of the recipe `wanted`."""
    return all(
        name in served.models and _difference(model, served.models[name]) is None
        for name, model in wanted.models.items()
    )


def require_models(recipe: Recipe, name: str, deployments: Collection[str]) -> None:
    """Raise ModelAppMismatch if the application `name` has no deployment for a model of the recipe."""
    missing = [model for model in recipe.models if deployment_name(model) not in deployments]
    if missing:
        raise ModelAppMismatch(f"the running application {name} has no model {', '.join(missing)}")


def require_same(name: str, model: str, wanted: Model, running: Model) -> None:
    """Raise ModelAppMismatch if the application `name` runs another model than the wanted model."""
    if (what := _difference(wanted, running)) is not None:
        raise ModelAppMismatch(
            f"the running application {name} has another model {model!r} than the recipe ({what} "
            "differ); end it, or give the recipe that it serves"
        )


def _difference(wanted: Model, running: Model) -> str | None:
    """What makes two models give other answers, in words for people; None if nothing does."""
    other = model_identity(wanted) != model_identity(running)
    if isinstance(wanted, VllmModel) and isinstance(running, VllmModel):
        # The running model may have further adapters.
        other = other or any(
            name not in running.adapters
            or adapter_identity(wanted, name) != adapter_identity(running, name)
            for name in wanted.adapters
        )
    if other:
        return "engine, weights or settings"
    return "context_tokens" if wanted.context_tokens != running.context_tokens else None
