"""The protocol of an engine, and the types that it takes and gives: messages in, deltas out."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypedDict, cast, runtime_checkable

from configs.schema import Sampling

FinishReason = Literal["stop", "length"]


class Message(TypedDict):
    """One message of a conversation."""

    role: str
    """`system`, `user` or `assistant`."""
    content: str
    """Plain text."""


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of an engine's answer."""

    text: str = ""
    """Text to append to the answer's text."""
    reasoning: str = ""
    """Text to append to the model's reasoning, which is not part of the answer."""
    finish_reason: FinishReason | None = None
    """Why the text ended. The delta with the last text has the reason."""
    prompt_tokens: int = 0
    """Tokens that the whole call read. Only one delta at the end of the call has the number."""
    completion_tokens: int = 0
    """Tokens that the whole call wrote. Only one delta at the end of the call has the number."""
    logprobs: tuple[dict[str, Any], ...] = ()
    """OpenAI's logprob objects, one per token."""
    engine_s: float = 0.0
    """Seconds that the engine worked on the whole call. The replica sets it at the end of the call."""
    last: bool = False
    """Whether the call has ended and no delta follows. The replica sets it, engines do not."""

    def plus(self, later: "Delta") -> "Delta":
        """This delta and the following delta `later`, merged into one."""
        return replace(
            self,
            text=self.text + later.text,
            reasoning=self.reasoning + later.reasoning,
            finish_reason=later.finish_reason or self.finish_reason,
            prompt_tokens=self.prompt_tokens + later.prompt_tokens,
            completion_tokens=self.completion_tokens + later.completion_tokens,
            logprobs=self.logprobs + later.logprobs,
            engine_s=self.engine_s + later.engine_s,
            last=self.last or later.last,
        )


async def collect_answer(deltas: AsyncIterator[Delta]) -> Delta:
    """Read an answer to its end and return it as one delta.

    If the caller is cancelled, `deltas` is closed, and the cancellation waits for that.
    """
    whole = Delta()
    async with aclosing(cast("AsyncGenerator[Delta]", deltas)) as answer:
        async for delta in answer:
            whole = whole.plus(delta)
    return whole


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a card that the plan gives to one engine."""

    threads: int = 1
    """CPU threads, if the card is a CPU."""
    on_gpu: bool = False
    """Whether the card is a GPU."""
    utilization: float = 0.9
    """Largest share of the card's memory that the engine may take, from 0 to 1. The engine's own check
    of the memory at its start counts too."""
    kv_cache_memory_bytes: int = 0
    """Bytes of that share for the KV cache; 0 if the plan does not set the size."""
    gpus: int = 1
    """GPUs that the card is made of. The model is split over all of them."""


class Engine(Protocol):
    """Runs one model. An engine knows nothing of mixtures, Ray or HTTP servers.

    An engine raises the errors of `configs.errors`: ContextTooLong for a prompt that does not fit,
    EngineError for a call that failed, EngineUnavailable if the engine as a whole is gone.
    """

    async def start(self) -> None:
        """Load the model; return when the engine can take its first call."""

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Delta]:
        """Answer a conversation.

        Closing the generator cancels the call. When closing returns, the engine no longer works on it.
        """

    async def token_ends(self, prompt: str | Sequence[Message]) -> list[int]:
        """Tokens of a text, or of a conversation in the model's chat template.

        Returns one number per token: the position in characters where the token ends. So the length of
        the list is the count of tokens, and a text cut at the nth number keeps n tokens.
        """

    async def check_health(self) -> None:
        """Return if the engine can work.

        Raises:
            EngineUnavailable: the engine cannot work.
        """

    async def stop(self) -> None:
        """End the engine and free all memory and processes that it holds.

        Calls in flight end with EngineUnavailable. `start` may be called again afterwards.
        """


@runtime_checkable
class Sleeper(Protocol):
    """An engine that can give its card's memory back and take it again.

    Both methods are called only while no call is in flight, and never while another engine of the same
    card falls asleep or wakes. After any error the engine is unusable until it is stopped and started.
    """

    async def sleep(self) -> None:
        """Give the card's memory back, but for a small residue."""

    async def wake(self) -> None:
        """Take the memory again; return when the engine can take the next call."""
