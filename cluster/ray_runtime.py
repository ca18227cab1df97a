"""Ray and Ray Serve, as this project starts or joins them: quiet, and without the dashboard.

In this module Ray is imported inside functions only, because it reads its settings from the environment
at import time and takes seconds to load.
"""

import io
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cluster.cards.card import Card
from cluster.cards.detect import detect_cards
from cluster.ray_address import ANSWER_S, VARIABLE, ClusterAddress, ask_cluster, find_address
from cluster.ray_applications import end_application, kill_application
from cluster.ray_processes import fewer_processes
from cluster.ray_thread import RayThread
from cluster.waiting import tell_waiting
from configs.errors import UserError

if TYPE_CHECKING:
    from ray.serve import Application

T = TypeVar("T")

APP_NAME = "slimmoa"
"""The Serve application of a cluster that serves one recipe only: that of `slimmoa serve` on the Ray
that it starts, and that of an exported config file."""

SERVED = "slimmoa-serve-"
"""How the names of the applications of `slimmoa serve` begin on a cluster that it joins. The recipe's
name and the port follow, because several servers may join a cluster."""

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
HEAD_RESOURCE = "node:__internal_head__"
"""Ray's name of a resource that only the head node has."""
DETECT_S = 60.0
"""Most seconds that nodes may take to detect their cards."""
JOIN_POLL_S = 1.0
"""Seconds between two counts of the nodes that have joined: Ray has no call that waits for a node."""
LEAVE_S = 5.0
"""Longest time, in seconds, that `leave_at_once` gives an application of a joined cluster to end."""

logger = logging.getLogger(__name__)
_thread = RayThread()
"""Starts Ray, deploys and leaves, so that signals never interrupt Ray's code."""


class PortTakenError(UserError):
    """The endpoint cannot listen on its port; mostly another program listens there."""


class AppTaken(UserError):
    """The cluster runs an application of the same name, which would be replaced."""


def connect(
    address: str | None, *, verbose: bool, named_by: str = "--address", within_s: float = ANSWER_S
) -> None:
    """Join the Ray cluster at `address`, or start one on this machine.

    Args:
        address: address of a cluster, as `find_address` takes it, or None to start one.
        verbose: whether this terminal shows the logs of all processes. Ray's session folder always has
            them.
        named_by: who gave the address, as messages say it.
        within_s: longest time, in seconds, in which the cluster has to answer.

    Raises:
        NoCluster: this process cannot join a cluster at `address`.
    """
    set_environment()
    if not verbose:
        os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
    known = None if address is None else find_address(address, named_by)
    _thread.run(partial(_connect, known, within_s, verbose=verbose), _keep_handlers)


def _connect(address: ClusterAddress | None, within_s: float, *, verbose: bool) -> None:
    # The variables may be set already, because Ray starts this process itself if it is a job's driver.
    for_replicas = {n: os.environ.pop(n, value) for n, value in REPLICA_ENVIRONMENT.items()}
    import ray
    import ray.serve

    os.environ.update(for_replicas)
    if address is not None:
        ask_cluster(address, within_s)
    local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    level = logging.INFO if verbose else logging.ERROR
    # Ray warns at every start that its token authentication is on, as it should be.
    for quiet in ("ray._private.authentication", "ray.serve"):
        logging.getLogger(quiet).setLevel(level)
    with fewer_processes(logs=verbose):
        ray.init(
            address="local" if address is None else str(address),
            log_to_driver=verbose,
            logging_level=level,
            **(local if address is None else {}),
        )


def _keep_handlers() -> None:
    """Put SIGTERM's handler in its place again: Ray puts one before it that prints a stack trace."""
    if threading.current_thread() is threading.main_thread():
        handler = signal.getsignal(signal.SIGTERM)
        if callable(handler):
            signal.signal(signal.SIGTERM, handler)


def environment_address() -> str | None:
    """The cluster that $RAY_ADDRESS names, as in a Ray job; None if the variable is not set."""
    return os.environ.get(VARIABLE) or None


def run(work: Callable[[], T]) -> T:
    """Run what calls Ray for long, such as a deployment, and return or raise what it does.

    A signal's handler that raises meanwhile interrupts only the caller's wait (`ray_thread`).
    """
    return _thread.run(work)


def set_environment() -> None:
    """Set `ENVIRONMENT` for this process and those that it starts. Call it before Ray is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def await_gpus(count: int) -> None:
    """Wait until the nodes of this process's cluster offer `count` GPUs in all."""
    found = 0

    def what() -> str:
        return f"nodes to join, which offer {found} of {count} GPUs,"

    with tell_waiting(what, logger.warning):
        while (found := sum(int(n["Resources"].get("GPU", 0)) for n in alive_nodes())) < count:
            time.sleep(JOIN_POLL_S)


def cluster_cards() -> list[Card]:
    """The cards of all nodes of the cluster. Each node detects its own. `Card.node` is Ray's node ID.

    Cards that a node has but does not offer to Ray are left out.

    Raises:
        GetTimeoutError: of Ray, if a node has not answered within DETECT_S.
        UserError: a node's GPUs cannot be used; the message names the node.
    """
    import ray

    resources = {node["NodeID"]: node["Resources"] for node in alive_nodes()}
    here = ray.get_runtime_context().get_node_id()
    asked = {node: detect_on_node(node) for node in resources if node != here}
    found = {node: _answer_of_node(node, answer) for node, answer in asked.items()}
    found[here] = detect_cards()
    return [card for node, has in resources.items() for card in _offered_cards(node, has, found[node])]


def _answer_of_node(node: str, answer: Any) -> list[Card]:
    """The cards that a node has told. Ray's own error would be a traceback of the other machine."""
    import ray
    from ray.exceptions import RayTaskError

    try:
        return list(ray.get(answer, timeout=DETECT_S))
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(f"node {node} of the cluster: {error.cause}") from error
        raise


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


def this_node() -> str:
    """Ray's ID of the node of this process."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def head_node(nodes: Sequence[Mapping[str, Any]]) -> str | None:
    """Ray's ID of the head node among these records of `alive_nodes`, or None if it is not there."""
    heads = (node for node in nodes if HEAD_RESOURCE in node.get("Resources", {}))
    return next((str(node["NodeID"]) for node in heads), None)


def _offered_cards(node: str, resources: Mapping[str, float], cards: Sequence[Card]) -> Iterator[Card]:
    """The cards that Ray offers on a node: Ray may have been started with fewer GPUs or cores."""
    cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    for card in cards:
        if card.kind == "gpu" and gpus > 0:
            gpus -= 1
            yield replace(card, node=node)
        elif card.kind == "cpu" and cores > 0:
            yield replace(card, node=node, cores=min(card.cores, cores))


def this_cluster() -> str:
    """The address at which other processes of this machine join the cluster of this process."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


def applications() -> list[str]:
    """Names of the Serve applications that run on the cluster or are being started."""
    from ray import serve

    return list(serve.status().applications)


def log_folder() -> Path:
    """The folder in which this Ray session keeps the logs of all processes of this node."""
    from ray._private import worker

    # Ray has no public way to learn the folder where `ray start` has got a --temp-dir.
    node: Any = worker._global_node
    return Path(node.get_logs_dir_path())


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
    """Leave the cluster in order. If this process has joined or started none, nothing happens.

    Args:
        name: name of an application to end, or None to end none.
        local: whether `connect` has started the cluster. Then the cluster ends, with all applications.
    """
    _thread.run(partial(_disconnect, name, local=local))


def _disconnect(name: str | None, *, local: bool) -> None:
    import ray
    from ray import serve

    if not ray.is_initialized():  # a call of Serve would start a Ray
        return
    # Serve ends its controller while calls to it are open, and Ray prints that it will retry them.
    with redirect_stdout(io.StringIO()):
        if name is not None:
            end_application(name)
        if local:
            serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


def leave_at_once(name: str | None, *, local: bool) -> None:
    """Leave the cluster within seconds, whatever this process is doing with it. The process has to end
    after that, with all processes below it (`own_processes`).

    Args:
        name: name of an application of a joined cluster that is to end, or None to end none. Its
            answers in work are not waited for.
        local: whether `connect` was to start the cluster. Then it ends with this process.
    """
    if not local and name is not None:
        # A thread of its own: the other one may wait for the deployment of this very application.
        ending = threading.Thread(target=kill_application, args=[name], daemon=True)
        ending.start()
        ending.join(LEAVE_S)


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
