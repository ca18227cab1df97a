"""Tests marked `virtual_time` run on an event loop whose clock jumps; all others on a real one."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import settings

from tests.unit.scripts import JumpingLoop

# A busy machine is no defect: hypothesis would fail an example that takes longer than 0.2 s.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("virtual_time"):
        return {"jumping": JumpingLoop}
    return {"real": asyncio.new_event_loop}
