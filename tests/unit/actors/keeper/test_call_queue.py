"""Which calls of a replica may start."""

import asyncio
import math

import pytest

from actors.keeper.call_queue import CallQueue

pytestmark = pytest.mark.virtual_time


async def test_no_call_starts_after_the_lease_has_run_out_until_it_is_renewed() -> None:
    queue = CallQueue(concurrency=2, on_change=lambda: None)
    queue.cutoff = math.inf
    queue.lease_until = 6.0
    await queue.wait_for_start(math.inf)
    await asyncio.sleep(6.0)
    late = asyncio.create_task(queue.wait_for_start(math.inf))
    await asyncio.sleep(1.0)
    queue.start_calls()
    assert (queue.in_flight, queue.waiting) == (1, 1)
    queue.lease_until = 12.0
    queue.start_calls()
    await late
    assert (queue.in_flight, queue.waiting) == (2, 0)
