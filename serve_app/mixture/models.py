"""What the mixture asks of the recipe's models, wherever the models run."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from actors.engine import NONE, Delta, Message
from configs.schema import Sampling


class Models(Protocol):
    """The recipe's models, which are called by name. If a call fails, it raises a RequestError."""

    def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncIterator[Delta]:
        """The model's answer. Closing the iterator cancels the call.

        Args:
            streamed: whether the answer is read as it grows. If not, the answer may come in few pieces,
                which costs less.
        """

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        """The model's answer in one piece, which costs less than `stream`."""

    async def count_tokens(
        self, model: str, messages: Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> int:
        """How many tokens the conversation takes in the model's chat template.

        Args:
            template: arguments of the chat template (`Sampling.template_arguments`).
        """

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:
        """For each text, the positions, in characters from its start, where the model's tokens end."""

    async def is_alive(self, model: str) -> bool:
        """Whether a replica of the model answers a probe. The probe takes a few seconds at most."""


class ModelsWithOrigin(Models, Protocol):
    """Models whose calls can carry where they come from (`actors/origin.py`)."""

    def on_behalf(self, origin: Mapping[str, str]) -> Models:
        """The same models. Their calls carry `origin`."""


@runtime_checkable
class WarmingModels(Models, Protocol):
    """Models that can put the beginning of a prompt into their engine's cache."""

    async def warm(
        self, model: str, messages: Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> int | None:
        """See `warm`."""


async def warm(
    models: Models, model: str, messages: Sequence[Message], template: Mapping[str, Any] = NONE
) -> int | None:
    """Have a model's engine read a conversation before it is asked for an answer (a warm-up).

    A warm-up does not wait, and it makes a call wait for one step of the engine at most: as soon as a
    call has no room, the warm-up ends.

    Args:
        models: the models.
        model: the model's name.
        messages: the conversation.
        template: arguments of the chat template (`Sampling.template_arguments`).

    Returns:
        How many tokens the engine has read anew; None if there was no complete warm-up. Causes: the
        engine has other work or cannot keep what it reads, or the model has several replicas.
    """
    return await models.warm(model, messages, template) if isinstance(models, WarmingModels) else None


def on_behalf(models: Models, origin: Mapping[str, str]) -> Models:
    """The same models. Their calls carry `origin`, if these models can have their calls carry one."""
    # `isinstance` with a protocol takes 6 microseconds, and each call would need this check.
    carry: Callable[[Mapping[str, str]], Models] | None = getattr(models, "on_behalf", None)
    return models if carry is None or not origin else carry(origin)
