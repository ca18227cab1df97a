"""Ray and Ray Serve, as this project starts them: quiet, local, without the dashboard.

Ray is imported only here inside functions, because it reads its settings from the environment at
import time and takes seconds to load.
"""

import io
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.cards.card import Card
from cluster.cards.detect import detect_cards
from configs.errors import UserError

if TYPE_CHECKING:
    from ray.serve import Application

APP_NAME = "slimmoa"
"""The Serve application that `slimmoa serve` runs."""

# Objects here are short texts; Ray's default would take 30% of the RAM.
OBJECT_STORE_BYTES = 256 << 20
# Set before Ray is imported, unless the user has set them.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` Ray would package the folder per worker
    "RAY_worker_niceness": "0",  # Ray's 15 lets any other process starve the engines
    # A node that is lost is found dead after 3 s instead of 15: until then calls to it wait. One that
    # is busy is not, since each of three looks may take 10 s.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    # What Ray does by the clock makes engines that use all cores wait for their slowest thread: 9% of
    # two cores made them 1.15 times slower. All of this is 10% of one core without, 6% with.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "1",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "10000",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",  # a dead proxy is replaced after three of them
    "RAY_enable_metrics_collection": "0",  # nothing of ours reads Ray's metrics
    "RAY_metrics_report_interval_ms": "60000",
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    "RAY_task_events_report_interval_ms": "0",  # for the dashboard, which is off
    "RAY_event_stats": "0",
    "RAY_raylet_report_resources_period_milliseconds": "1000",
    "RAY_memory_monitor_refresh_ms": "2000",
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "1",  # look for new files twice a second, not 10 times
}
DETECT_S = 60.0
"""Longest wait for the nodes to tell of their cards."""
# For the processes that Ray starts and not for this one, where handles are also called outside of an
# event loop. One loop per replica costs less: docs/results.md.
REPLICA_ENVIRONMENT = {
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
}


JOIN_POLL_S = 1.0
"""Between two looks for nodes that have joined: Ray has no call that waits for one."""

logger = logging.getLogger(__name__)


class PortTakenError(UserError):
    """Another program listens where the endpoint should."""


def connect(address: str | None, *, verbose: bool) -> None:
    """Join the Ray cluster at `address`, or start one on this machine.

    verbose: the logs of all processes go to this terminal; they are always under Ray's session folder.

    Raises:
        ConnectionError: there is no cluster at `address`.
    """
    set_environment()
    if not verbose:
        os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
    # This process may be such a one, as the driver of a Ray job is.
    theirs = {n: os.environ.pop(n, value) for n, value in REPLICA_ENVIRONMENT.items()}
    import ray
    import ray.serve

    os.environ.update(theirs)
    local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    level = logging.INFO if verbose else logging.ERROR
    # Ray warns at every start that its token authentication is on, which is as it should be.
    for quiet in ("ray._private.authentication", "ray.serve"):
        logging.getLogger(quiet).setLevel(level)
    ray.init(
        address=address or "local",
        log_to_driver=verbose,
        logging_level=level,
        **({} if address else local),
    )


def set_environment() -> None:
    """Ray's settings, for this process and those that it starts. Before Ray is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def local_clusters() -> list[str]:
    """Addresses of the Ray clusters that run on this machine, those of `slimmoa serve` among them."""
    set_environment()
    from ray._private.services import find_gcs_addresses  # `auto` only finds those of `ray start`

    return sorted(find_gcs_addresses())  # type: ignore[no-untyped-call]


def await_gpus(count: int) -> None:
    """Returns once the nodes of the cluster that this process is in have `count` GPUs to give out."""
    said = -1
    while (there := sum(int(n["Resources"].get("GPU", 0)) for n in alive_nodes())) < count:
        if there != said:
            said = there
            logger.warning("waiting for nodes to join: the cluster has %d of %d GPUs", there, count)
        time.sleep(JOIN_POLL_S)


def cards() -> list[Card]:
    """The cards of all nodes of the cluster, each as its own node finds them; `node` is Ray's ID.

    A node whose Ray has no GPU or no CPU to give out has no such card.
    """
    import ray

    nodes = {node["NodeID"]: node["Resources"] for node in alive_nodes()}
    here = ray.get_runtime_context().get_node_id()
    asked = {node: detection(node) for node in nodes if node != here}
    lists = dict(zip(asked, ray.get(list(asked.values()), timeout=DETECT_S), strict=True))
    lists[here] = detect_cards()
    return [card for node, has in nodes.items() for card in _given_out(node, has, lists[node])]


def detection(node: str) -> Any:
    """A reference to the cards of a node, as a task there finds them. An actor cannot look for itself:
    Ray shows it only the GPUs that it was given."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task: Any = ray.remote(detect_cards)
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    return task.options(num_cpus=0, scheduling_strategy=here).remote()


def alive_nodes() -> list[dict[str, Any]]:
    """Ray's records of the nodes that are there."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _given_out(node: str, resources: Mapping[str, float], cards: Sequence[Card]) -> Iterator[Card]:
    """What Ray may give out of a node's cards: it can have been started with less."""
    cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    for card in cards:
        if card.kind == "gpu" and gpus > 0:
            gpus -= 1
            yield replace(card, node=node)
        elif card.kind == "cpu" and cores > 0:
            yield replace(card, node=node, cores=min(card.cores, cores))


def applications() -> list[str]:
    """Names of the Serve applications that run on the cluster, or are about to."""
    from ray import serve

    return list(serve.status().applications)


def log_folder() -> Path:
    """Where this Ray session keeps the logs of all processes."""
    import ray

    name = ray.get_runtime_context().get_session_name()
    return Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", name, "logs")


def deploy(app: "Application", name: str, http: tuple[str, int] | None) -> None:
    """Run a Serve application; returns when all of its replicas are up.

    http: host and port where it answers; None for one that is reached by its handles alone.

    Raises:
        RuntimeError: a replica cannot start; the message has its error.
    """
    from ray import serve

    if http is None:
        serve.start(proxy_location="Disabled")
    else:
        serve.start(proxy_location="HeadOnly", http_options={"host": http[0], "port": http[1]})
    try:
        serve.run(app, name=name, route_prefix=None if http is None else "/")
    except RuntimeError as error:
        # Serve's own message only names the deployments; what they said stands in the status.
        deployments = serve.status().applications[name].deployments
        causes = [f"{n}: {_cause(d.message)}" for n, d in deployments.items() if d.message]
        raise RuntimeError("\n".join(causes) or str(error)) from error


def _cause(message: str) -> str:
    """The last line of a traceback: the exception itself."""
    return next((line for line in reversed(message.splitlines()) if line.strip()), "").strip()


def disconnect(name: str | None, *, local: bool) -> None:
    """End the application, if one is named, and the whole cluster if it was started by `connect`."""
    import ray
    from ray import serve

    # Serve ends its controller with calls open, of which Ray then prints that it will retry them.
    with redirect_stdout(io.StringIO()):
        if local:
            serve.shutdown()  # type: ignore[no-untyped-call]
        elif name is not None:
            serve.delete(name)
        ray.shutdown()


def check_port(host: str, port: int) -> None:
    """Whether the endpoint can listen there: Serve itself would only say that a proxy is unhealthy.

    Raises:
        PortTakenError: it cannot; the message says why.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTakenError(f"cannot listen on {host}:{port}: {error.strerror}") from error
