"""The helper processes of a Ray node that have no work here, and how to start Ray without them."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def fewer_processes(*, logs: bool) -> Iterator[None]:
    """Within this context Ray starts a node without helpers that have no work on one machine.

    Ray has no option for this. Left out are the autoscaler and the log monitor, which reads all log
    files 10 times a second to show them in terminals. Each is a Python process of 80 MB.

    Args:
        logs: whether the log monitor starts nevertheless, because a terminal shows the logs.
    """
    from ray._private.node import Node

    helpers = ["start_monitor"] if logs else ["start_monitor", "start_log_monitor"]
    starts = {name: getattr(Node, name) for name in helpers}
    for name in helpers:
        setattr(Node, name, lambda _: None)
    try:
        yield
    finally:
        for name, start in starts.items():
            setattr(Node, name, start)
