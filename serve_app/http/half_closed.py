"""Finds out whether a client that ended its half of a connection still reads.

A client that sends no more (`shutdown(SHUT_WR)`) and a client that left both send a FIN. The two differ
in what they do with the next bytes: a client that reads takes them, and the system of a client that
left answers with a reset. So harmless bytes are written, and then Linux is asked whether a reset came.
"""

import asyncio
import socket
import sys
from collections.abc import Callable
from itertools import accumulate

QUICK_S = 0.003
"""Seconds before the first bytes are written where no response has begun. Most short answers are
complete by then, and need no bytes but their own."""
LOOKS_S = (0.001, 0.004, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.36)
"""Seconds between the looks for a reset, which takes as long as the way to the client and back. If no
reset has come by the last look, the client reads."""
TCP_CLOSE = 7
"""State of a connection that a reset has ended, in Linux's `include/net/tcp_states.h`."""
CAN_TELL = sys.platform == "linux"
"""Whether this system tells the state of a TCP connection."""


class HalfClosed:
    """Watches one connection whose client has sent a FIN.

    Args:
        sock: the socket of the connection; only its state is read.
        write: writes harmless bytes to the client.
        on_left: called once if the client has left, or if nobody can tell.
    """

    def __init__(
        self, sock: socket.socket, write: Callable[[], None], on_left: Callable[[], None]
    ) -> None:
        self._sock = sock
        self._write = write
        self._on_left = on_left
        self._timers: list[asyncio.TimerHandle] = []

    def start(self, delay_s: float) -> None:
        """Write the bytes after `delay_s` seconds, then look for a reset for about a second."""
        self._timers = [asyncio.get_running_loop().call_later(delay_s, self._write_and_look)]

    def cancel(self) -> None:
        """Stop watching; `on_left` is no longer called."""
        for timer in self._timers:
            timer.cancel()

    def _write_and_look(self) -> None:
        self._write()
        loop = asyncio.get_running_loop()
        self._timers = [loop.call_later(at_s, self._look) for at_s in accumulate(LOOKS_S)]

    def _look(self) -> None:
        if is_reset(self._sock):
            self._leave()

    def _leave(self) -> None:
        self.cancel()
        self._on_left()


def is_reset(sock: socket.socket) -> bool:
    """Whether a reset has ended a TCP connection. Reads Linux's `TCP_INFO`, which starts with the
    state."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE
