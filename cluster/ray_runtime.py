"""Ray and Ray Serve, as this project starts or joins them: quiet, and without the dashboard.

In this module Ray is imported inside functions only, because it reads its settings from the environment
at import time and takes seconds to load.
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
from cluster.ray_processes import fewer_processes
from configs.errors import UserError

if TYPE_CHECKING:
    from ray.serve import Application

APP_NAME = "slimmoa"
"""The Serve application that `slimmoa serve` runs."""

OBJECT_STORE_BYTES = 256 << 20
"""Size of Ray's object store. Our objects are short texts; Ray's default would take 30% of the RAM."""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` Ray would package the folder per worker
    "RAY_worker_niceness": "0",  # Ray's 15 lets any other process starve the engines
    # Calls to a lost node wait until Ray finds it dead: with these after 3 s, by default after 15 s. A
    # node that is only busy is not found dead, since each of the three checks may take 10 s.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    # Ray's periodic work delays engines that use all cores, because these wait for their slowest
    # thread: 9% of two cores made them 1.15 times slower. The settings below slow down what finds no
    # deaths. How much each process takes with them and without: docs/results.md.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "1",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "10000",
    # When Serve is shut down, it ends the ingresses before the models, but by default it waits 30 s for
    # them at most. Each replica has a limit of its own, which follows from the recipe's limits.drain_s.
    "RAY_SERVE_SHUTDOWN_TIER_TIMEOUT_S": "90000",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",  # where proxies listen; three find a dead one
    "RAY_enable_metrics_collection": "0",  # this project does not read Ray's metrics
    "RAY_metrics_report_interval_ms": "60000",
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    "RAY_task_events_report_interval_ms": "0",  # for the dashboard, which is off
    "RAY_event_stats": "0",
    "RAY_raylet_report_resources_period_milliseconds": "1000",
    "RAY_memory_monitor_refresh_ms": "2000",
    # The raylet looks 10 times a second whether disks are full, objects fill the store or copies of
    # objects are late, and 5 times for idle workers. Our objects are few and short.
    "RAY_local_fs_monitor_interval_ms": "10000",
    "RAY_raylet_check_gc_period_milliseconds": "1000",
    "RAY_object_manager_timer_freq_ms": "1000",
    "RAY_kill_idle_workers_interval_ms": "1000",
    "RAY_gcs_pull_resource_loads_period_milliseconds": "10000",  # for an autoscaler
    "SCAN_EVENT_DIR_INTERVAL_SECONDS": "60",  # for the dashboard
    "METRICS_RECORD_INTERVAL_S": "60",  # for the dashboard
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "1",  # look for new files twice a second, not 10 times
}
"""Environment variables for Ray, set before it is imported unless the user has set them."""
REPLICA_ENVIRONMENT = {
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
}
"""More such variables for the processes that Ray starts. They give a replica one event loop in place of
several, which costs less CPU: docs/results.md. They are not for this process, because Serve's handles
then work only in an event loop."""
DETECT_S = 60.0
"""Most seconds that nodes may take to detect their cards."""
END_POLL_S = 0.1
"""Seconds between two looks whether an application has ended: Serve has no call that waits for that as
long as it takes."""
JOIN_POLL_S = 1.0
"""Seconds between two counts of the nodes that have joined: Ray has no call that waits for a node."""

logger = logging.getLogger(__name__)


class PortTakenError(UserError):
    """The endpoint cannot listen on its port; mostly another program listens there."""


def connect(address: str | None, *, verbose: bool) -> None:
    """Join the Ray cluster at `address`, or start one on this machine.

    Args:
        address: Ray's address of a cluster, or None to start one.
        verbose: whether this terminal shows the logs of all processes. Ray's session folder always has
            them.

    Raises:
        ConnectionError: there is no cluster at `address`.
    """
    set_environment()
    if not verbose:
        os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
    # The variables may be set already, because Ray starts this process itself if it is a job's driver.
    for_replicas = {n: os.environ.pop(n, value) for n, value in REPLICA_ENVIRONMENT.items()}
    import ray
    import ray.serve

    os.environ.update(for_replicas)
    local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    level = logging.INFO if verbose else logging.ERROR
    # Ray warns at every start that its token authentication is on, as it should be.
    for quiet in ("ray._private.authentication", "ray.serve"):
        logging.getLogger(quiet).setLevel(level)
    with fewer_processes(logs=verbose):
        ray.init(
            address=address or "local",
            log_to_driver=verbose,
            logging_level=level,
            **({} if address else local),
        )


def set_environment() -> None:
    """Set `ENVIRONMENT` for this process and those that it starts. Call it before Ray is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def local_clusters() -> list[str]:
    """Addresses of all Ray clusters that run on this machine, those of this project included."""
    set_environment()
    # Ray's public `auto` only finds clusters of `ray start`.
    from ray._private.services import find_gcs_addresses

    return sorted(find_gcs_addresses())  # type: ignore[no-untyped-call]


def await_gpus(count: int) -> None:
    """Wait until the nodes of this process's cluster offer `count` GPUs in all."""
    logged = -1
    while (found := sum(int(n["Resources"].get("GPU", 0)) for n in alive_nodes())) < count:
        if found != logged:
            logged = found
            logger.warning("waiting for nodes to join: the cluster has %d of %d GPUs", found, count)
        time.sleep(JOIN_POLL_S)


def cluster_cards() -> list[Card]:
    """The cards of all nodes of the cluster. Each node detects its own. `Card.node` is Ray's node ID.

    Cards that a node has but does not offer to Ray are left out.

    Raises:
        GetTimeoutError: of Ray, if a node has not answered within DETECT_S.
    """
    import ray

    resources = {node["NodeID"]: node["Resources"] for node in alive_nodes()}
    here = ray.get_runtime_context().get_node_id()
    asked = {node: detect_on_node(node) for node in resources if node != here}
    found = dict(zip(asked, ray.get(list(asked.values()), timeout=DETECT_S), strict=True))
    found[here] = detect_cards()
    return [card for node, has in resources.items() for card in _offered_cards(node, has, found[node])]


def detect_on_node(node: str) -> Any:
    """A Ray reference to the cards of a node, which a task on that node detects.

    An actor cannot detect all cards of its node by itself, because Ray hides the other actors' GPUs
    from it.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task: Any = ray.remote(detect_cards)
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    return task.options(num_cpus=0, scheduling_strategy=here).remote()


def alive_nodes() -> list[dict[str, Any]]:
    """Ray's record of each node of the cluster that is alive, as `ray.nodes()` gives it."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _offered_cards(node: str, resources: Mapping[str, float], cards: Sequence[Card]) -> Iterator[Card]:
    """The cards that Ray offers on a node: Ray may have been started with fewer GPUs or cores."""
    cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    for card in cards:
        if card.kind == "gpu" and gpus > 0:
            gpus -= 1
            yield replace(card, node=node)
        elif card.kind == "cpu" and cores > 0:
            yield replace(card, node=node, cores=min(card.cores, cores))


def applications() -> list[str]:
    """Names of the Serve applications that run on the cluster or are being started."""
    from ray import serve

    return list(serve.status().applications)


def log_folder() -> Path:
    """The folder in which this Ray session keeps the logs of all processes."""
    import ray

    name = ray.get_runtime_context().get_session_name()
    return Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", name, "logs")


def deploy(app: "Application", name: str) -> None:
    """Run a Serve application, and return when all of its replicas are up. If Serve does not run yet,
    it starts without its proxies. If it runs already, its proxies stay as they are.

    Args:
        app: the application.
        name: its name.

    Raises:
        RuntimeError: a replica cannot start; the message has its error.
    """
    from ray import serve

    serve.start(proxy_location="Disabled")
    try:
        serve.run(app, name=name, route_prefix=None)
    except RuntimeError as error:
        # Serve's own message only names the deployments. Their errors are in the status.
        deployments = serve.status().applications[name].deployments
        causes = [f"{n}: {_cause(d.message)}" for n, d in deployments.items() if d.message]
        raise RuntimeError("\n".join(causes) or str(error)) from error


def _cause(message: str) -> str:
    """The last line of a traceback, which is the exception itself."""
    return next((line for line in reversed(message.splitlines()) if line.strip()), "").strip()


def disconnect(name: str | None, *, local: bool) -> None:
    """Leave the cluster.

    Args:
        name: name of an application to end, or None to end none.
        local: whether `connect` has started the cluster. Then the cluster ends, with all applications.
    """
    import ray
    from ray import serve

    # Serve ends its controller while calls to it are open, and Ray prints that it will retry them.
    with redirect_stdout(io.StringIO()):
        if name is not None:
            _end_application(name)
        if local:
            serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


def _end_application(name: str) -> None:
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


def abandon() -> None:
    """Leave the cluster at once. A cluster that `connect` has started ends with all that runs on it;
    on any other cluster, applications that are being ended go on ending."""
    import ray

    ray.shutdown()


def check_port(host: str, port: int) -> None:
    """Check that a port of this machine is free, before minutes are spent on starting models.

    Raises:
        PortTakenError: the port cannot be used; the message has the reason.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTakenError(f"cannot listen on {host}:{port}: {error.strerror}") from error
