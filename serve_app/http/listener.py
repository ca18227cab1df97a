"""Serves an ASGI app on a port of this machine, without a proxy in front.

Several processes of one user may listen on the same port of a node (`SO_REUSEPORT`): Linux then spreads
the connections over them.
"""

import asyncio
import resource
import select
import socket
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp

from configs.errors import ShuttingDown, UserError
from serve_app.http.http_protocol import HttpProtocol, Shared

BACKLOG = 2048
"""Connections that may wait to be accepted."""
QUEUED_S = 0.05
"""Seconds for which a listener that stops still takes in the connections and requests that wait, and
answers them."""
QUIET_STEPS = 2
"""Steps of the event loop in a row without a connection that waits, after which the port can be closed.
asyncio accepts a connection in one step and gives it a transport in the next, for which the port has to
be open still."""
MADE_STEPS = 2
"""Steps of the event loop between the making of a connection's transport and `connection_made`."""
MOST_FILES = 65_536
"""Open files that the process may have, if the system allows it. Each connection is a file, and many
systems allow a process 1,024 unless it asks for more."""
FLUSH_S = 2.5
"""Seconds in which the last bytes of all connections have to be read, once nothing works any more."""


class CannotListen(UserError):
    """The port cannot be opened; the message names host and port, and why."""


class Listener:
    """An HTTP/1.1 server in the running event loop.

    It installs no handlers of signals, and logs no requests.

    Args:
        app: the ASGI app that answers.
        host: name or IP address, of version 4 or 6, of the interface to listen on.
        port: number of the port; 0 for any free port.
        head_timeout_s: longest time in which the headers of a request have to come, in seconds.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, *, head_timeout_s: float = 30.0) -> None:
        self._host = host
        self._port = port
        self._shared = Shared(app, head_timeout_s)
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []

    @property
    def port(self) -> int:
        """The port that is listened on; the one that was asked for until `start` returns."""
        return self._port

    async def start(self) -> None:
        """Open the port. Requests are answered from now on.

        Raises:
            CannotListen: the port cannot be opened.
        """
        _allow_many_files()
        loop = asyncio.get_running_loop()
        try:
            for family, address in await _addresses(self._host, self._port):
                sock = _bound(family, (address[0], self._port, *address[2:]))
                self._sockets.append(sock)
                self._port = sock.getsockname()[1]
            for sock in self._sockets:
                server = await loop.create_server(self._connect, sock=sock, backlog=BACKLOG)
                self._servers.append(server)
        except OSError as error:
            self._close_sockets()
            message = f"cannot listen on {self._host} port {self._port}: {error.strerror or error}"
            raise CannotListen(message) from error

    async def stop(self, drain_s: float) -> None:
        """Stop serving; return when no connection is left.

        1. Connections that wait to be accepted are still accepted; then the port closes, and idle
           connections are closed. Requests that were on their way are answered, because a client cannot
           know which of the processes that share the port has got its connection.
        2. Further requests are refused (503). Requests in work have `drain_s` seconds to end.
        3. Then their streams end with an error event, their other answers are errors (503), and the
           app's work on them is cancelled.
        """
        shared = self._shared
        shared.is_draining = True
        await self._accept_queued()  # 1
        self._close_sockets()
        for _ in range(MADE_STEPS):
            await asyncio.sleep(0)
        for connection in list(shared.connections):
            connection.drain()
        if any(connection.awaits_head for connection in shared.connections):
            await self._until_no_connection(QUEUED_S)
        shared.refuses = True
        if shared.tasks:
            await asyncio.wait(shared.tasks, timeout=drain_s)  # 2
        for connection in list(shared.connections):  # 3
            connection.end(ShuttingDown(f"this server stops; the answer had {drain_s:g} s left to end"))
        for task in list(shared.tasks):
            task.cancel()
        await self._until_closed()

    async def _accept_queued(self) -> None:
        """Give the event loop time to accept the connections that wait."""
        loop = asyncio.get_running_loop()
        until = loop.time() + QUEUED_S
        waiting = select.poll()  # unlike select(), it takes descriptors of any size
        for sock in self._sockets:
            waiting.register(sock, select.POLLIN)
        quiet = 0
        while quiet < QUIET_STEPS and loop.time() < until:
            await asyncio.sleep(0)
            quiet = 0 if waiting.poll(0) else quiet + 1

    async def _until_closed(self) -> None:
        shared = self._shared
        if shared.tasks:
            await asyncio.wait(shared.tasks, timeout=FLUSH_S)
        await self._until_no_connection(FLUSH_S)
        for connection in list(shared.connections):
            connection.abort()
        await self._until_no_connection(None)

    async def _until_no_connection(self, timeout_s: float | None) -> None:
        if self._shared.connections:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._shared.has_no_connection.wait()

    def _close_sockets(self) -> None:
        for server in self._servers:
            server.close()
        for sock in self._sockets:
            sock.close()
        self._servers.clear()
        self._sockets.clear()

    def _connect(self) -> HttpProtocol:
        return HttpProtocol(self._shared)


def _allow_many_files() -> None:
    """Raise the process's own limit of open files towards the system's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _addresses(host: str, port: int) -> list[tuple[int, Any]]:
    """The families and addresses that a host stands for."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


def _bound(family: int, address: Any) -> socket.socket:
    """A socket at an address, which other processes of this user may share."""
    # With the protocol named: only then does asyncio turn Nagle's delay off on what is accepted.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock
