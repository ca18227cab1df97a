"""Lets engines of this process serve as the models of a mixture, without Ray."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from actors.engine import NONE, Delta, Message, Writer, collect_answer
from configs.schema import Sampling


class EngineModels:
    """`serve_app.mixture.models.Models` over engines, or adapters, by name."""

    def __init__(self, writers: Mapping[str, Writer]) -> None:
        self._writers = dict(writers)

    def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncGenerator[Delta]:
        return self._writers[model].stream(messages, sampling, streamed)

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        return await collect_answer(self.stream(model, messages, sampling, False))

    async def count_tokens(
        self, model: str, messages: Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> int:
        return len(await self._writers[model].token_ends(messages, template))

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:
        return [await self._writers[model].token_ends(text) for text in texts]

    async def is_alive(self, _model: str) -> bool:
        return True
