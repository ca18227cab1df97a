"""Work of Ray runs in one lasting thread, which signals do not reach."""

import os
import signal
import threading

import pytest

from cluster.ray_thread import RayThread


def test_results_and_errors_come_back_from_one_lasting_thread() -> None:
    thread = RayThread()
    first, second = thread.run(threading.current_thread), thread.run(threading.current_thread)
    assert first is second is not threading.main_thread()
    assert first.daemon
    assert thread.run(lambda: thread.run(lambda: 7)) == 7, "work may call work"
    with pytest.raises(ZeroDivisionError):
        thread.run(lambda: 1 / 0)
    assert first.is_alive()
    assert not thread.is_busy


def test_a_signal_interrupts_the_wait_and_not_the_work() -> None:
    thread, go, done = RayThread(), threading.Event(), threading.Event()

    def work() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert go.wait(30)
        done.set()

    def leave(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, leave)
    try:
        with pytest.raises(KeyboardInterrupt):
            thread.run(work)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert thread.is_busy
    go.set()
    assert done.wait(30)


def test_a_closed_terminal_does_not_reach_what_the_thread_starts() -> None:
    blocked = RayThread().run(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    assert signal.SIGHUP in blocked
    assert signal.SIGTERM not in blocked
