"""What all checks of a card work on, and what is used of the card now."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import psutil

from cluster.cards.card import Card
from cluster.plan.placement import Placement
from configs.schema import Recipe

SETTLE_S = 10.0
PAUSE_S = 0.25


class Meter:
    """Measures one card: a GPU by NVML, where all processes count, so nobody else may use it; the RAM
    of a CPU by our own process and its children."""

    def __init__(self, card: Card) -> None:
        self._card = card

    def used_bytes(self) -> int:
        """Now. Shared pages of RAM count once per process that maps them."""
        if self._card.kind == "gpu":
            memory = _nvml_memory(self._card.indices[0])
            return int(memory.used)
        here = psutil.Process()
        used = 0
        for process in [here, *here.children(recursive=True)]:
            try:
                used += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return used

    async def settled_bytes(self, at_most: int | None = None) -> int:
        """When it has not changed for a moment, and has come down to `at_most`, or after SETTLE_S."""
        deadline = time.monotonic() + SETTLE_S
        before, now = -1, self.used_bytes()
        while time.monotonic() < deadline:
            if abs(now - before) < 1 << 20 and (at_most is None or now <= at_most):
                break
            await asyncio.sleep(PAUSE_S)
            before, now = now, self.used_bytes()
        return now


@dataclass(frozen=True, slots=True)
class Bench:
    """A planned recipe of dummy models, and the card that it runs on."""

    recipe: Recipe
    placement: Placement
    card: Card
    meter: Meter
    answer_tokens: int


def _nvml_memory(index: int) -> Any:
    import pynvml

    pynvml.nvmlInit()
    try:
        return pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(index))
    finally:
        pynvml.nvmlShutdown()
