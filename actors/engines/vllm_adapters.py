"""LoRA adapters over the model of vLLM's engine. Imports no vLLM."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from actors.engine import NONE, Delta, Message
from actors.weights.adapters import adapter_here
from cluster.cards.card import Kind
from cluster.plan.lora import Lora, joined, read_adapter, target_modules
from configs.errors import EngineUnavailable
from configs.schema import Sampling, VllmModel


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """An adapter as vLLM is told of it."""

    name: str
    number: int
    """vLLM's number of the adapter, from 1."""
    folder: Path


class Answers(Protocol):
    """The engine, as far as its adapters need it."""

    @property
    def can_warm(self) -> bool:
        """See `Warmer.can_warm`."""

    async def read(
        self, messages: Sequence[Message], template: Mapping[str, Any], adapter: str | None
    ) -> int:
        """See `VllmEngine.read`."""

    def answer(
        self, messages: Sequence[Message], sampling: Sampling, streamed: bool, adapter: str | None
    ) -> AsyncGenerator[Delta]:
        """See `Writer.stream`."""

    async def token_ends(
        self, prompt: str | Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> list[int]:
        """See `Writer.token_ends`."""


@dataclass(frozen=True, slots=True)
class AdapterWriter:
    """One adapter, which answers with the engine of its model (`Writer`).

    An adapter changes neither the tokenizer nor the control tokens. Its own arguments of the chat
    template count like those of a call.
    """

    engine: Answers
    name: str
    template: Mapping[str, Any]
    """The adapter's arguments of the chat template."""

    def stream(
        self, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncGenerator[Delta]:
        """See `Writer.stream`."""
        if self.template:
            template = {**self.template, **sampling.template}
            sampling = sampling.model_copy(update={"template": template})
        return self.engine.answer(messages, sampling, streamed, self.name)

    async def token_ends(
        self, prompt: str | Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> list[int]:
        """See `Writer.token_ends`."""
        return await self.engine.token_ends(prompt, {**self.template, **template})

    @property
    def can_warm(self) -> bool:
        """See `Warmer`."""
        return self.engine.can_warm

    async def warm(self, messages: Sequence[Message], template: Mapping[str, Any] = NONE) -> int:
        """See `Warmer`."""
        return await self.engine.read(messages, {**self.template, **template}, self.name)


def find_adapters(name: str, model: VllmModel) -> tuple[list[LoadedAdapter], Lora | None]:
    """The adapters of a model, which have to be on this machine, and what they take together.

    Args:
        name: the model's name, for errors.
        model: the model's settings.

    Raises:
        EngineUnavailable: the folder of an adapter is not here.
        BadAdapter: an adapter cannot be understood, or vLLM cannot run it.
    """
    found = []
    for number, (adapter, settings) in enumerate(model.adapters.items(), 1):
        folder = adapter_here(settings.weights)
        if folder is None:
            raise EngineUnavailable(f"the folder of adapter {adapter!r} is not here", model=name)
        found.append(LoadedAdapter(adapter, number, folder))
    return found, joined([read_adapter(each.folder) for each in found]) if found else None


def lora_arguments(lora: Lora | None, kind: Kind) -> dict[str, Any]:
    """Keyword arguments of `vllm.AsyncEngineArgs` that are about adapters.

    vLLM gets room for all adapters at once, and only beside the matrices that they change. On a CPU it
    gets room for one more, because it would otherwise mix adapters up (`cluster/plan/lora.py`).
    """
    if lora is None:
        return {}
    lora = lora.on(kind)
    return {
        "enable_lora": True,
        "max_loras": lora.slots,
        "max_cpu_loras": lora.slots,
        "max_lora_rank": lora.rank,
        "lora_target_modules": target_modules(lora),
    }
