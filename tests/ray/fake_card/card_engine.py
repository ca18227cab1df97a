"""An engine whose memory is that of the fake card (`card.py`), and whose steps wait at latches."""

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import ray

from actors.engine import NONE, Delta, Message, Share
from configs.errors import EngineUnavailable
from configs.schema import Sampling, ScriptedModel


def create(name: str, model: ScriptedModel, share: Share) -> "CardEngine":  # noqa: ARG001
    return CardEngine(name, model.weight_bytes or 0)


class CardEngine:
    def __init__(self, name: str, weight_bytes: int) -> None:
        self._name = name
        self._bytes = weight_bytes
        self._card = ray.get_actor("card", namespace="fake")

    async def _do(self, method: str, *arguments: Any) -> Any:
        return await getattr(self._card, method).remote(*arguments)

    async def start(self) -> None:
        await self._take("start")

    async def wake(self) -> None:
        await self._take("wake")

    async def sleep(self) -> None:
        await self._do("step", f"{self._name} sleep")
        await self._do("give", os.getpid())
        await self._do("note", f"{self._name} sleep done")

    async def _take(self, step: str) -> None:
        if problem := await self._do("step", f"{self._name} {step}"):
            raise EngineUnavailable(problem, model=self._name)
        if problem := await self._do("take", self._name, os.getpid(), self._bytes):
            raise EngineUnavailable(problem, model=self._name)
        await self._do("note", f"{self._name} {step} done")

    async def stop(self) -> None:
        await self._do("give", os.getpid())
        await self._do("note", f"{self._name} stop")

    async def check_health(self) -> None:
        if await self._do("is_broken", self._name):
            raise EngineUnavailable("its process died", model=self._name)

    async def check_asleep(self) -> None:
        await self.check_health()

    async def stream(
        self, _messages: Sequence[Message], _sampling: Sampling, _streamed: bool = True
    ) -> AsyncGenerator[Delta]:
        yield Delta(text=self._name)
        await self._do("step", f"{self._name} call")
        yield Delta(text=" done", finish_reason="stop", prompt_tokens=1, completion_tokens=2)

    async def token_ends(
        self, prompt: str | Sequence[Message], _template: Mapping[str, Any] = NONE
    ) -> list[int]:
        return [len(str(prompt))]
