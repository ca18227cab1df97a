"""What every engine is: the Engine protocol and the Delta that flows out of it."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypedDict, cast, runtime_checkable

from configs.schema import Sampling

FinishReason = Literal["stop", "length"]


class Message(TypedDict):
    """One turn of a conversation. role: system, user or assistant; content: plain text."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Delta:
    """What an engine adds to its answer.

    text and reasoning grow the answer; finish_reason comes with the last text. The token counts
    come once, at the end, and are of the whole call. logprobs: OpenAI's objects, one per token.
    engine_s: seconds that the engine worked on the call, set by the replica at its end.
    """

    text: str = ""
    reasoning: str = ""
    finish_reason: FinishReason | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    logprobs: tuple[dict[str, Any], ...] = ()
    engine_s: float = 0.0

    def plus(self, later: "Delta") -> "Delta":
        """This delta and the one after it, as one."""
        return replace(
            self,
            text=self.text + later.text,
            reasoning=self.reasoning + later.reasoning,
            finish_reason=later.finish_reason or self.finish_reason,
            prompt_tokens=self.prompt_tokens + later.prompt_tokens,
            completion_tokens=self.completion_tokens + later.completion_tokens,
            logprobs=self.logprobs + later.logprobs,
            engine_s=self.engine_s + later.engine_s,
        )


async def whole_of(deltas: AsyncIterator[Delta]) -> Delta:
    """All of an answer as one delta. Cancelled, it closes the answer and waits for that."""
    whole = Delta()
    async with aclosing(cast("AsyncGenerator[Delta]", deltas)) as answer:
        async for delta in answer:
            whole = whole.plus(delta)
    return whole


@dataclass(frozen=True, slots=True)
class Share:
    """What of its card one engine may use, as planned.

    threads: CPU threads, on a CPU; on_gpu: the card is one; utilization: the largest share of the
    card's memory that it takes, start-up check included; kv_cache_memory_bytes: what its KV cache
    gets of that, 0 if nobody planned it; gpus: that the card is made of, over which it is split.
    """

    threads: int = 1
    on_gpu: bool = False
    utilization: float = 0.9
    kv_cache_memory_bytes: int = 0
    gpus: int = 1


class Engine(Protocol):
    """Runs one model. Knows nothing of mixtures, Ray or HTTP servers.

    Errors are those of `configs.errors`: ContextTooLong for a prompt that does not fit, EngineError
    for a call that failed, EngineUnavailable when the engine as a whole is gone.
    """

    async def start(self) -> None:
        """Load what is needed; returns when the first call can be taken."""

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Delta]:
        """Answer a conversation. Closing the generator stops the engine's work on it.

        When closing returns, the engine no longer works on the call.
        """

    async def token_ends(self, prompt: str | Sequence[Message]) -> list[int]:
        """Tokens of a text, or of a conversation as the model will see it, template included.

        One number per token: where it ends, in characters. So `len` counts tokens, and cutting
        the text at the nth number leaves n tokens.
        """

    async def check_health(self) -> None:
        """Return if the engine can work; raise EngineUnavailable if it cannot."""

    async def stop(self) -> None:
        """Free everything. Calls under way end with EngineUnavailable."""


@runtime_checkable
class Sleeper(Protocol):
    """An engine that can give its card back and take it again. Both are called only when nothing is
    in flight, and never while another engine of the card does the same.

    Any error means that the engine cannot be used before it is stopped and started again.
    """

    async def sleep(self) -> None:
        """Give back the card's memory, all but a residue."""

    async def wake(self) -> None:
        """Take the memory again; afterwards the next call can be taken."""
