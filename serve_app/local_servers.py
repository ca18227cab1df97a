"""The `slimmoa serve` processes of this user on this machine, as each of them says of itself.

A server keeps a locked folder with one file. So a benchmark finds the servers of its own user without
asking every Ray of the machine, and a server that has ended is not found, however it ended.
"""

import json
import os
import socket
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from actors.private_folder import PrivateFolder, folders_in_use
from cluster.ray_runtime import PortTakenError
from configs.schema import Recipe

PARENT = Path("/tmp")
"""Where the folders are. The folder for temporary files may differ between two shells of a user."""
PREFIX = "slimmoa-server-"
"""How the folders' names begin."""
FILE = "server.json"
"""What a server says of itself."""
ASK_S = 2.0
"""Longest time, in seconds, in which a server has to answer one request about its health."""
AGAIN_S = 0.1
"""Seconds between two such requests."""
UP_S = 10.0
"""Longest time, in seconds, until a server whose models are up answers at its own URL."""
HEARD_S = 5.0
"""Longest time, in seconds, for which a server waits until its ingress has heard of every model."""


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A server of this user on this machine that is ready."""

    recipe: Recipe
    app: str
    """Name of its Serve application."""
    cluster: str
    """Address of the Ray cluster that runs the application."""


class Announcement:
    """What this server says of itself to this user's other processes, until `remove` is called.

    Args:
        host: interface on which the server is to listen.
        port: port on which the server is to listen.
        parent: where the folder is created.

    Raises:
        PortTakenError: another server of this user starts or serves at the same port already. Linux
            itself would let both listen, and give each of them some of the connections.
        OSError: no folder can be created.
    """

    def __init__(self, host: str, port: int, parent: Path = PARENT) -> None:
        self._folder = PrivateFolder(parent, PREFIX)
        self._said: dict[str, Any] = {"host": host, "port": port, "pid": os.getpid()}
        self._write()
        for folder in folders_in_use(parent, PREFIX):
            other = _read(folder)
            if (
                folder != self._folder.path
                and other.get("port") == port
                and _overlap(host, str(other.get("host")))
            ):
                self.remove()
                raise PortTakenError(
                    f"cannot listen on {host}:{port}: another `slimmoa serve` has taken the port "
                    f"(process {other.get('pid')})"
                )

    def ready(self, server: LocalServer) -> None:
        """Offer the server to benchmarks."""
        recipe = server.recipe.model_dump(mode="json", exclude_defaults=True)
        self._said |= {"recipe": recipe, "app": server.app, "cluster": server.cluster}
        self._write()

    def remove(self) -> None:
        """Say nothing any longer. Must be called only once."""
        self._folder.remove()

    def _write(self) -> None:
        new = self._folder.path / f"{FILE}.new"
        new.write_text(json.dumps(self._said), "utf-8")
        os.replace(new, self._folder.path / FILE)


def find_servers(parent: Path = PARENT) -> list[LocalServer]:
    """The servers of this user on this machine that are ready."""
    found = []
    for folder in folders_in_use(parent, PREFIX):
        said = _read(folder)
        try:
            recipe = Recipe.model_validate(said["recipe"])
            found.append(LocalServer(recipe, str(said["app"]), str(said["cluster"])))
        except (KeyError, ValidationError):  # it still starts, or another release wrote the file
            continue
    return found


def own_url_failure(host: str, port: int, within_s: float = UP_S) -> str | None:
    """Ask an endpoint of this machine whether it is alive, until it says so.

    Args:
        host: interface on which the endpoint listens.
        port: port on which it listens.
        within_s: how long to ask, in seconds.

    Returns:
        None once it answers; else why it does not.
    """
    due = time.monotonic() + within_s
    while True:
        try:
            status, _ = _get(host, port, "/healthz")
            if status == 200:
                return None
            failure = f"HTTP status {status}"
        except (OSError, HTTPException) as error:
            failure = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if time.monotonic() >= due:
            return failure
        time.sleep(AGAIN_S)


def wait_for_models(host: str, port: int, within_s: float = HEARD_S) -> None:
    """Wait until an endpoint of this machine can ask every model, or until the time is up.

    The models run already. But an ingress that has just started hears of their replicas a moment later,
    and the first answer would lack the proposals of a model that it has not heard of.

    Args:
        host: interface on which the endpoint listens.
        port: port on which it listens.
        within_s: how long to wait, in seconds. A model may be away for longer, such as one on another
            server, and the mixture answers without it.
    """
    due = time.monotonic() + within_s
    while time.monotonic() < due:
        try:
            _, body = _get(host, port, "/readyz")
            if all(state == "ready" for state in json.loads(body)["models"].values()):
                return
        except (OSError, HTTPException, ValueError, LookupError, TypeError):
            pass  # the endpoint answered a moment ago, and may do so again
        time.sleep(AGAIN_S)


def _get(host: str, port: int, path: str) -> tuple[int, bytes]:
    """The status and the body of an endpoint's response."""
    connection = HTTPConnection(_reachable(host), port, timeout=ASK_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _reachable(host: str) -> str:
    """An address by which this machine reaches what listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def _overlap(host: str, other: str) -> bool:
    """Whether servers on the same port of these interfaces would get each other's connections."""
    ours, theirs = _addresses(host), _addresses(other)
    return bool(ours & theirs) or any(ip_address(address).is_unspecified for address in ours | theirs)


def _addresses(host: str) -> set[str]:
    try:
        return {str(info[4][0]).split("%")[0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return set()


def _read(folder: Path) -> dict[str, Any]:
    """What a server says of itself; nothing if it has just ended."""
    try:
        said = json.loads((folder / FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
