"""Ends Serve applications of the cluster of this process, in order or at once."""

import logging
import time
from contextlib import suppress

END_POLL_S = 0.1
"""Seconds between two looks whether an application has ended: Serve has no call that waits for that as
long as it takes."""

logger = logging.getLogger(__name__)


def end_application(name: str) -> None:
    """End an application once its answers in work have ended, as far as the recipe gives them time.

    Serve's own waits end after 30 or 60 s, whatever the recipe says. So this function waits itself.
    """
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    try:
        serve.delete(name, _blocking=False)
        while name in serve.status().applications:
            time.sleep(END_POLL_S)
    except (RayError, RayServeException) as error:
        logger.warning("application %s was not ended in order: %s", name, error)


def kill_application(name: str) -> None:
    """End an application in whatever state it is, without waiting for its answers in work.

    Its actors are killed first, so that Serve finds nothing that it would have to end in its own time.
    """
    import ray

    if not ray.is_initialized():  # a call of Serve would start a Ray
        return
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if is_app_actor(name, actor["name"]):
            with suppress(ValueError):  # the actor has just ended
                ray.kill(ray.get_actor(**actor))
    end_application(name)


def is_app_actor(app: str, actor: str) -> bool:
    """Whether an actor belongs to an application, by its name: Serve names replicas
    `SERVE_REPLICA::APP#DEPLOYMENT#ID`, and keepers are `keeper:APP:NODE:CARD:PLAN`."""
    return actor.startswith((f"SERVE_REPLICA::{app}#", f"keeper:{app}:"))
