"""How a command ends when a signal asks for it: Ctrl-C (SIGINT), SIGTERM or SIGHUP.

1. The first signal raises an exception in the main thread, so that the command can end what it has
   begun.
2. A command that has not ended LIMIT_S later is ended from a thread of its own, whatever it is doing:
   the main thread may hang in the code of a library.
3. A second Ctrl-C ends the command at once. A second SIGTERM changes nothing.
4. In each case all processes below this one end with it, one line says what happened, and the exit
   code is that of the signal: 130, 143 or 129.

Nothing heavy is imported here, because the command line watches for signals before it imports the rest.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from cluster.own_processes import end_children

SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
"""The signals that end a command, as messages name them."""
LIMIT_S = 8.0
"""Longest time, in seconds, from a signal to the end of a command, unless the command asks for more."""
REPEAT_S = 0.5
"""A second Ctrl-C within so many seconds is the first one again: some programs send signals twice."""
CATCH_UP_S = 1.0
"""Longest time, in seconds, that the main thread waits for the thread that watches."""
CLEAN_LINE = "\r\x1b[K\x1b[?25h"
"""Removes a spinner from a terminal's line, and shows the cursor again."""


class Terminated(BaseException):
    """SIGTERM or SIGHUP asks the command to end. SIGINT raises KeyboardInterrupt instead, which some
    commands take for something else than their end."""


class _Stopping:
    """What the signals of this process have asked for so far."""

    def __init__(self) -> None:
        self.is_watching = False
        self.number: int | None = None
        """The first signal; None so far."""
        self.line: str | None = None
        """What is printed at the end; None for the usual line, empty for nothing more."""
        self.takes_interrupts = False
        """Whether the command uses Ctrl-C for something else."""
        self.limit_s = LIMIT_S
        self._since = 0.0
        self._has_raised = False
        self._ending = threading.Lock()
        self._has_caught_up = threading.Event()
        self._wake = -1

    def watch(self) -> None:
        """Handle signals from now on."""
        read, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(number, self._terminate)
        threading.Thread(target=self._look, args=[read], daemon=True, name="signals").start()
        self.is_watching = True
        # A shell starts what it puts into the background deaf to Ctrl-C; a server has to end all the
        # same. This comes last, because from here on Ctrl-C raises.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def allow(self, seconds: float) -> None:
        """Let the end take so many seconds after the first signal."""
        self.limit_s = seconds
        if self.is_watching:
            with suppress(BlockingIOError):
                os.write(self._wake, b"\0")

    def catch_up(self) -> None:
        """Return once the thread that watches has taken note of all signals so far."""
        if not self.is_watching:
            return
        self._has_caught_up.clear()
        with suppress(BlockingIOError):
            os.write(self._wake, b"\0")
            self._has_caught_up.wait(CATCH_UP_S)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number, self._since = number, time.monotonic()
        if self._has_raised or self.number != number:
            return
        self._has_raised = True
        interrupt = signal.getsignal(signal.SIGINT)
        if interrupt is signal.default_int_handler or not callable(interrupt):
            raise Terminated
        interrupt(signal.SIGINT, frame)  # asyncio's own: it cancels what the event loop runs

    def _look(self, read: int) -> None:
        """Take note of signals, and end the process once it takes too long."""
        while True:
            left_s = None
            if self.number is not None:
                left_s = max(0.0, self._since + self.limit_s - time.monotonic())
            if not select.select([read], [], [], left_s)[0]:
                self.end()
            for number in os.read(read, 64):
                self._note(number)
            self._has_caught_up.set()

    def _note(self, number: int) -> None:
        if number not in SIGNALS or (number == signal.SIGINT and self.takes_interrupts):
            return
        if self.number is None:
            self.number, self._since = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() > self._since + REPEAT_S:
            self.end()

    def end(self) -> NoReturn:
        """End this process and all below it now."""
        if not self._ending.acquire(blocking=False):
            while True:  # another thread ends the process already
                time.sleep(1)
        number = self.number or signal.SIGINT
        line = f"stopped by {SIGNALS[signal.Signals(number)]}" if self.line is None else self.line
        with suppress(OSError, ValueError):
            clean = CLEAN_LINE if os.isatty(2) else ""
            os.write(2, (clean + (f"{line}\n" if line else "")).encode())
        # What libraries say of their processes' sudden end helps nobody.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        end_children()
        os._exit(128 + number)


_state = _Stopping()


def run(command: Callable[[], None]) -> None:
    """Run a command, and handle the signals of this process as this module says.

    To be called once, by the main thread.
    """
    try:
        try:
            _state.watch()
            command()
        except SystemExit:
            _state.catch_up()
            if _state.number is None:
                raise
            leave()
        except (KeyboardInterrupt, Terminated):
            leave()
    except (KeyboardInterrupt, Terminated):  # another signal came in the midst of that
        leave()


def leave(line: str | None = None) -> NoReturn:
    """End the process with the exit code of the signal that has come, and all processes below it.

    Args:
        line: what to print in place of `stopped by SIGNAL`; nothing if it is empty.

    Raises:
        SystemExit: the process does not watch for signals, as in tests.
    """
    if not _state.is_watching:
        raise SystemExit(130)
    for number in SIGNALS:
        signal.signal(number, _ignore)
    if line is not None:
        _state.line = line
    _state.catch_up()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    _state.end()


def in_order(seconds: float, line: str) -> None:
    """Say that the command ends in its own time, and let the end take so many seconds.

    Args:
        seconds: longest time from the signal to the end of the process.
        line: what is printed now, in place of a line at the end.
    """
    _state.catch_up()
    signal.signal(signal.SIGINT, _ignore)  # a second Ctrl-C must not interrupt the end: (3)
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
    _state.line = ""
    _state.allow(seconds)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing in the main thread. Unlike SIG_IGN, it leaves signals to the thread that watches."""


@contextmanager
def own_interrupts() -> Iterator[None]:
    """Within this block the command itself handles Ctrl-C, which is not the command's end."""
    _state.takes_interrupts = True
    try:
        yield
    finally:
        _state.takes_interrupts = False
