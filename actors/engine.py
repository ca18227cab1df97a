"""What engines can do (`Engine` and its additions), and their data: messages and deltas."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypedDict, cast, runtime_checkable

import msgspec

from configs.schema import Sampling

PIECE_S = 0.1
"""Longest time, in seconds, for which an engine holds text back from a caller that does not read the
answer while it grows. Such a caller still looks at the text: whether any has come by the time of its
limit for the first token, and what has come by its deadline."""
NONE: Mapping[str, Any] = MappingProxyType({})
"""No arguments of a chat template."""
FinishReason = Literal["stop", "length", "content_filter", "tool_calls"]
"""`stop`: the model or a stop text ended the answer. `length`: there was no room for more tokens.
`tool_calls`: the model has called tools, and waits for their results.
`content_filter`: a filter of the model's server cut the answer, or the model refused to answer."""


class Message(TypedDict):
    """One message of a conversation."""

    role: str
    """`system`, `user` or `assistant`."""
    content: str
    """Plain text."""


class CallDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """The next piece of a call of a tool, as OpenAI's streams have it."""

    index: int = 0
    """The number of the call in its answer, from 0."""
    id: str = ""
    """By which the tool's result will name the call; in the first piece of a call, empty in others."""
    name: str = ""
    """Name of the tool; in the first piece of a call, empty in the others."""
    arguments: str = ""
    """JSON to append to the arguments."""


class Delta(msgspec.Struct, frozen=True, omit_defaults=True):
    """The next piece of an engine's answer.

    There is one for nearly every token. To make a struct costs 0.1 us, a frozen dataclass 0.9 us.
    """

    text: str = ""
    """Text to append to the answer's text."""
    reasoning: str = ""
    """What the model thought before it answered, if the engine tells it apart from the text."""
    finish_reason: FinishReason | None = None
    """Why the answer ended, in one delta of each call: no text comes after it. None in the others."""
    prompt_tokens: int = 0
    """Tokens that the whole call read, in one delta at the end of the call; 0 in the others."""
    completion_tokens: int = 0
    """Tokens that the whole call wrote, in one delta at the end of the call; 0 in the others."""
    logprobs: tuple[dict[str, Any], ...] = ()
    """OpenAI's logprob objects for the tokens of this delta, one per token."""
    engine_s: float = 0.0
    """Seconds that the engine worked on the whole call. The replica sets it in the last delta."""
    last: bool = False
    """Whether this is the call's last delta. The replica sets it, engines do not."""
    cached_tokens: int = 0
    """Those of `prompt_tokens` whose keys and values the engine had in its cache; 0 if the engine does
    not tell."""
    queue_s: float = 0.0
    """Seconds that the call waited at the replica, for the model's turn and for room in its engine. The
    replica sets it in the last delta."""
    first_s: float = 0.0
    """Seconds from the start of the engine's work to the first text or reasoning; 0 if there was none.
    The replica sets it in the last delta."""
    tool_calls: tuple[CallDelta, ...] = ()
    """Pieces of calls of tools."""


def merge(deltas: Sequence[Delta]) -> Delta:
    """One delta that says the same as all of these, one after the other. There must be at least one."""
    if len(deltas) == 1:
        return deltas[0]
    return Delta(
        text="".join([delta.text for delta in deltas]),
        reasoning="".join([delta.reasoning for delta in deltas]),
        finish_reason=next((d.finish_reason for d in reversed(deltas) if d.finish_reason), None),
        prompt_tokens=sum(delta.prompt_tokens for delta in deltas),
        completion_tokens=sum(delta.completion_tokens for delta in deltas),
        logprobs=tuple(logprob for delta in deltas for logprob in delta.logprobs),
        engine_s=sum(delta.engine_s for delta in deltas),
        last=any(delta.last for delta in deltas),
        cached_tokens=sum(delta.cached_tokens for delta in deltas),
        queue_s=sum(delta.queue_s for delta in deltas),
        first_s=sum(delta.first_s for delta in deltas),
        tool_calls=tuple(call for delta in deltas for call in delta.tool_calls),
    )


async def collect_answer(deltas: AsyncIterator[Delta]) -> Delta:
    """Read an answer to its end and return it as one delta.

    If the caller is cancelled, `deltas` is closed, and the cancellation waits for that.
    """
    async with aclosing(cast("AsyncGenerator[Delta]", deltas)) as answer:
        return merge([delta async for delta in answer] or [Delta()])


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a card (a GPU, several GPUs or a CPU) that the plan gives to one engine."""

    threads: int = 1
    """CPU threads that the engine may use, if the card is a CPU."""
    on_gpu: bool = False
    """Whether the card is a GPU."""
    utilization: float = 0.9
    """The most of the card's memory that the engine takes, from 0 to 1. vLLM does not start unless this
    much is free."""
    kv_cache_memory_bytes: int = 0
    """Bytes of that memory for the KV cache, over all GPUs of the card; 0 if no plan gives a size."""
    gpus: int = 1
    """Number of GPUs that form the card; the model is split over all of them."""


class Writer(Protocol):
    """What answers conversations: an engine, or an adapter over the model of one.

    Its errors are those of `configs.errors`, mainly: ContextTooLong for a prompt that does not fit,
    BadRequest for any other call that the model refuses, EngineError for a call that failed, and
    EngineUnavailable if the engine as a whole is gone.
    """

    def stream(
        self, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncGenerator[Delta]:
        """Answer a conversation: yield the answer piece by piece.

        Closing the generator cancels the call. When closing returns, the engine no longer works on the
        call.

        If the last message is the assistant's, the answer continues that message, as far as the model
        can, and has only the text that is new.

        Args:
            streamed: whether the caller reads the answer while it grows. If not, the engine may hold
                text back for about PIECE_S and yield few large deltas, because every delta costs CPU
                time. The first text and the end come without delay all the same.
        """

    async def token_ends(
        self, prompt: str | Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> list[int]:
        """Return where each token of a text, or of a conversation in the model's chat template, ends.

        The list has one number per token: the position in characters where the token ends. So the list
        is as long as there are tokens, and a text cut at the nth number keeps n tokens.

        Args:
            template: arguments of the chat template that win over those of the model.
        """


class Engine(Writer, Protocol):
    """Runs one model. An engine knows nothing of mixtures, Ray or HTTP servers."""

    async def start(self) -> None:
        """Load the model; return when the engine can take its first call."""

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
class Warmer(Protocol):
    """A writer whose engine can keep what it has read of a prompt for the next call."""

    @property
    def can_warm(self) -> bool:
        """Whether this engine, as it runs now, can use the beginning of a prompt again."""

    async def warm(self, messages: Sequence[Message], template: Mapping[str, Any] = NONE) -> int:
        """Read a conversation, so that a later call whose prompt begins in the same way is faster.

        If this coroutine is cancelled, the engine ends the work within one step. A later call may still
        use what the engine has read by then.

        Args:
            template: as in `Writer.token_ends`.

        Returns:
            How many tokens the engine had to read. The other tokens were in its cache already.
        """


@runtime_checkable
class HasAdapters(Protocol):
    """An engine that holds adapters over its model. They share its weights, its queue and its sleep."""

    def with_adapter(self, name: str) -> Writer:
        """The adapter of that name.

        Raises:
            UnknownModel: the engine has no such adapter.
        """


@runtime_checkable
class Sleeper(Protocol):
    """An engine that can give its card's memory back and take it again.

    `sleep` and `wake` are called only while no call is in flight, and never while another engine of the
    same card falls asleep or wakes. If one of them fails, the engine is unusable until it has been
    stopped and started.
    """

    async def sleep(self) -> None:
        """Give the card's memory back except for a small rest."""

    async def wake(self) -> None:
        """Take the memory again; return when the engine can take the next call."""

    async def check_asleep(self) -> None:
        """Return if the engine, which sleeps, can be woken as far as is known without waking it.

        Raises:
            EngineUnavailable: it cannot; it has to be stopped and started.
        """
