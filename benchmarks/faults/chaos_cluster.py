"""The cluster of the chaos run: how to kill each kind of process, and whether all is whole again."""

import pickle
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from actors.replica import ReplicaStats
from benchmarks.faults.chaos_models import REMOTE, recipe
from benchmarks.shared.harness import HOST, free_port
from benchmarks.shared.simulated import CARD, Nodes, cluster
from cluster import ray_runtime
from cluster.residency.state import State
from configs.schema import Recipe

INGRESS, SERVER, NODE = "ingress", "engine server", "node"
REPLICA = f"ray::ServeReplica:{ray_runtime.APP_NAME}:"
TITLES = {
    "model actor": f"{REPLICA}model-",
    "keeper": "ray::RayKeeper",
    INGRESS: f"{REPLICA}ingress",
    "controller": "ray::ServeController",
}
KINDS = (*TITLES, SERVER, NODE)
HOLD_CONNECTIONS = {INGRESS, NODE}
"""Kinds whose processes are between a client and its answer."""
INGRESSES = 2
ASK_S = 2.0
SERVER_AWAY_S, NODE_AWAY_S = 1.0, 8.0
"""What a supervisor of the server and of the machines takes until it starts another one."""


class EngineServer:
    """A child process that answers as model REMOTE: it stands for an engine that does not run inside
    its replica, as vLLM's processes and other servers do not."""

    def __init__(self, cards: int) -> None:
        self._port = free_port()
        self._cards = cards
        self.url = f"http://{HOST}:{self._port}"
        self.start()

    def start(self) -> None:
        """Start the process, the first or the next one."""
        command = [sys.executable, "-m", "benchmarks.faults.chaos_models"]
        self._process = subprocess.Popen([*command, str(self._port), str(self._cards)])

    def kill(self) -> int:
        """SIGKILL; its process ID."""
        self._process.kill()
        self._process.wait()
        return self._process.pid

    @property
    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            with urlopen(f"{self.url}/healthz", timeout=ASK_S) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


@dataclass(frozen=True, slots=True)
class Killed:
    """at: of the monotonic clock; what: which process it was."""

    kind: str
    what: str
    at: float


class Chaos:
    """A cluster that serves the mixture, whose processes can be killed."""

    def __init__(self, nodes: Nodes, server: EngineServer, cards: int) -> None:
        self._nodes = nodes
        self._server = server
        self.cards = cards
        self.recipe = recipe(server.url, cards)
        self.url = _deployed(self.recipe)
        self._seen: dict[psutil.Process, str] = {}
        replicas = {f"{REPLICA}model-{name}": cards for name in self.recipe.models}
        self._wanted = replicas | {TITLES[INGRESS]: INGRESSES}
        self._wanted |= {TITLES["keeper"]: cards, TITLES["controller"]: 1}

    def kill(self, kind: str, chance: random.Random) -> Killed | None:
        """Kill one process of a kind; servers and nodes are started again after a while. None if there
        is none at this moment."""
        at = time.monotonic()
        if kind == SERVER:
            what = f"process {self._server.kill()}"
            time.sleep(SERVER_AWAY_S)
            self._server.start()
        elif kind == NODE:
            which = chance.randrange(self.cards)
            what = f"worker node {which}"
            self._nodes.lose(which)
            time.sleep(NODE_AWAY_S)
            self._nodes.add()
        else:
            found = [(p, t) for p, t in self.processes().items() if t.startswith(TITLES[kind])]
            if not found:
                return None
            process, title = chance.choice(sorted(found, key=lambda pair: pair[0].pid))
            what, at = f"{_short(title)}, process {process.pid}", time.monotonic()
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        return Killed(kind, what, at)

    def processes(self) -> dict[psutil.Process, str]:
        """All of the cluster's that live, as they call themselves; also those whose parent has died."""
        for process in psutil.Process().children(recursive=True):
            self._seen[process] = ""
        for process in list(self._seen):
            try:
                title = " ".join(process.cmdline()) if process.is_running() else ""
            except psutil.Error:
                title = ""
            if title:
                self._seen[process] = title
            else:
                del self._seen[process]  # ended, or not yet reaped
        return dict(self._seen)

    def ingress_nodes(self) -> set[str]:
        """The nodes on which an ingress runs."""
        from ray.serve.context import _get_global_client

        client: Any = _get_global_client()
        apps = client.get_serve_details()["applications"]
        replicas = apps[ray_runtime.APP_NAME]["deployments"][INGRESS]["replicas"]
        return {replica["node_id"] for replica in replicas if replica["state"] == "RUNNING"}

    def lacks(self) -> str:
        """What is not as it was in the beginning; empty if all is."""
        titles = list(self.processes().values())
        for wanted, count in self._wanted.items():
            if sum(title.startswith(wanted) for title in titles) < count:
                return f"a process of {_short(wanted)}"
        if not self._server.is_up:
            return "the engine server"
        return _lack_of_serve(self._wanted) or self._lack_of_engines()

    def _lack_of_engines(self) -> str:
        """Which model has fewer engines that are awake than cards."""
        import ray
        from ray.exceptions import RayError

        from actors.keeper.ray_keeper import keepers

        awake = Counter[str]()
        for keeper in keepers(ray_runtime.APP_NAME).values():
            with suppress(RayError):  # of a card that is gone, or being restarted
                standing = ray.get(keeper.snapshots.remote(), timeout=ASK_S)
                awake.update(
                    name.partition("/")[0]
                    for name, found in standing.items()
                    if found.state is State.RESIDENT
                )
        on_cards = (name for name in self.recipe.models if name != REMOTE)
        return next((f"an engine of {name}" for name in on_cards if awake[name] < self.cards), "")


@contextmanager
def chaos(cards: int) -> Iterator[Chaos]:
    """A head without cards and nodes with one each, all of this machine; the mixture on it."""
    server = EngineServer(cards)
    try:
        with cluster(*[CARD] * cards) as nodes:
            yield Chaos(nodes, server, cards)
    finally:
        server.kill()


def _deployed(mixture: Recipe) -> str:
    """The base URL, once `serve deploy` would say that it runs. The ingresses on the nodes of one
    machine share a port, which the kernel balances, as a load balancer would."""
    from ray import serve
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    from serve_app.serve_config import serve_config

    port = free_port()
    config = serve_config(mixture, HOST, port, ingresses=INGRESSES)
    serve.start(proxy_location=config["proxy_location"])
    client: Any = _get_global_client()
    client.deploy_apps(ServeDeploySchema.model_validate(config), _blocking=True)
    return f"http://{HOST}:{port}"


def _lack_of_serve(wanted: dict[str, int]) -> str:
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve._private.common import ReplicaState

    try:
        status = serve.status()
    except RayError:
        return "an answer of Serve's controller"
    for title, count in wanted.items():
        name = title.removeprefix(REPLICA)
        if name != title:
            deployment = status.applications[ray_runtime.APP_NAME].deployments[name]
            if deployment.replica_states.get(ReplicaState.RUNNING, 0) < count:
                return f"a running replica of {name}"
    return ""


def replica_stats() -> list[tuple[str, ReplicaStats]]:
    """What each replica of a model says of itself, and which it is. Serve's handles choose one; here
    each is asked, the way that those do."""
    import ray
    from ray.serve._private.common import RequestMetadata

    stats = []
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if f"{ray_runtime.APP_NAME}#model-" in actor["name"]:
            asked = RequestMetadata(uuid.uuid4().hex, uuid.uuid4().hex, call_method="stats")
            replica: Any = ray.get_actor(**actor)
            answer = replica.handle_request.remote(pickle.dumps(asked))
            stats.append((actor["name"].rpartition("::")[2], ray.get(answer, timeout=ASK_S)))
    return stats


def busy(stats: Sequence[tuple[str, ReplicaStats]]) -> list[str]:
    """Replicas with calls in work or waiting."""
    return [name for name, counts in stats if counts.in_flight or counts.waiting]


def _short(title: str) -> str:
    return title.removeprefix(REPLICA).removeprefix("ray::").split(".")[0].strip()
