"""Serve's notices of the replicas that run: which there are, and what each says of itself.

Serve's controller tells its own handles and proxies about replicas by a long poll: a call that returns
when something has changed. This file makes the same call. Serve has no public way to hear of replicas,
so the call is Serve's private one, of the version that pyproject.toml names; only this file knows it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ray
from ray.exceptions import RayError
from ray.serve._private.common import DeploymentID
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve._private.long_poll import LongPollNamespace, LongPollState

from actors.calls.address import Address
from serve_app.deployment_names import INGRESS, deployment_name
from serve_app.replica_models import Notice

AGAIN_S = 0.5
"""Seconds to wait after a call to the controller has failed: Ray restarts a controller that dies."""

logger = logging.getLogger(__name__)

DeploymentNotice = Callable[[str, Mapping[str, Mapping[str, Any]]], None]
"""Takes in the replicas of a deployment: the deployment's name, and what each replica says of itself
(the result of its `record_replica_metadata`), by the replica's ID."""


async def watch_models(
    app: str,
    models: Iterable[str],
    notice: Notice,
    count_ingresses: Callable[[int], None] = lambda _: None,
) -> None:
    """Give a notice for each model now, and again whenever its replicas change; never return.

    Args:
        app: name of the Serve application.
        models: names of the models.
        notice: takes in the addresses of a model's replicas.
        count_ingresses: takes in the number of ingresses, now and whenever the number changes.
    """

    def noticed(deployment: str, replicas: Mapping[str, Mapping[str, Any]]) -> None:
        if deployment == INGRESS:
            count_ingresses(len(replicas))
        else:
            notice(names[deployment], _addresses(replicas))

    names = {deployment_name(model): model for model in models}
    await _watch_deployments(app, [INGRESS, *names], noticed)


def _addresses(replicas: Mapping[str, Mapping[str, Any]]) -> dict[str, Address]:
    """The addresses of those replicas that tell theirs in a form that this version knows."""
    addresses = {}
    for name, said in replicas.items():
        try:
            addresses[name] = Address.from_dict(said)
        except TypeError:
            logger.warning("replica %s does not say where it takes calls", name)
    return addresses


async def _watch_deployments(app: str, deployments: Iterable[str], notice: DeploymentNotice) -> None:
    """Give a notice for each deployment now, and again whenever its replicas change; never return.

    While the controller is away there are no notices. The calls to replicas do not need the controller.
    """
    names = {
        (LongPollNamespace.DEPLOYMENT_TARGETS, DeploymentID(name, app)): name for name in deployments
    }
    seen = dict.fromkeys(names, -1)
    controller: Any = None
    while True:
        try:
            if controller is None:
                # In a thread: without Ray's head, this takes up to a minute, and answers go on.
                controller = await asyncio.to_thread(
                    ray.get_actor, SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE
                )
            changes: Any = await controller.listen_for_change.remote(seen)
        except (RayError, ValueError) as error:  # ValueError: no controller has this name now
            logger.warning("Serve's controller is out of reach: %s", type(error).__name__)
            controller = None
            seen = dict.fromkeys(names, -1)
            await asyncio.sleep(AGAIN_S)
            continue
        if changes is LongPollState.TIME_OUT:
            continue
        for key, change in changes.items():
            seen[key] = change.snapshot_id
            replicas = change.object_snapshot.running_replicas
            notice(names[key], {r.replica_id.unique_id: r.replica_metadata for r in replicas})
