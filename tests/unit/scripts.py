"""Models that follow a script, and a clock that jumps: for tests that wait for nothing."""

import asyncio
import copy
import re
import selectors
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVarTuple

from actors.engine import NONE, Delta, FinishReason, Message, collect_answer
from configs.schema import Sampling

Step = str | Delta | BaseException | float | None
"""A step of a script: text or a delta to write, an error to raise, or seconds to wait. None waits for
ever."""
Script = Sequence[Step] | Callable[["Asked"], Sequence[Step]]


class _JumpingSelector(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits, and nothing will ever happen"
            self.now += max(0.0, timeout)
        return ready


Ts = TypeVarTuple("Ts")

clock_ahead_s: ContextVar[float] = ContextVar("clock_ahead_s", default=0.0)
"""Seconds by which the clock of this context is ahead, for tests of machines whose clocks differ."""


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as nothing else is left to do."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now + clock_ahead_s.get()

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return super().call_at(when - clock_ahead_s.get(), callback, *args, context=context)


@dataclass
class Asked:
    """One engine call as the engine saw it."""

    model: str
    messages: list[Message]
    sampling: Sampling
    at: float
    """When it began, on the event loop's clock."""
    ended: str = ""
    """`finished`, `failed` or `closed`; "" while it is in flight."""

    @property
    def text(self) -> str:
        return "\n".join(message["content"] for message in self.messages)


@dataclass
class FakeModels:
    """`mixture.models.Models` by script. A word is a token, and a message takes four tokens more."""

    scripts: dict[str, Script] = field(default_factory=dict)
    """What each model does, by its name."""
    counting: dict[str, Step] = field(default_factory=dict)
    """What counting a model's tokens does first."""
    probing: dict[str, Step] = field(default_factory=dict)
    """What a probe of a model does first. No replica of a model without an entry answers."""
    finish_reason: FinishReason = "stop"
    closing_s: float = 0
    """Seconds that an engine takes to let go of a call that is closed."""
    asked: list[Asked] = field(default_factory=list)
    """Every call, in the order in which they were made."""

    async def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, _streamed: bool = True
    ) -> AsyncIterator[Delta]:
        now = asyncio.get_running_loop().time()
        asked = Asked(model, copy.deepcopy(list(messages)), sampling, now)
        self.asked.append(asked)
        script = self.scripts[model]
        written, finish = 0, self.finish_reason
        try:
            for step in script(asked) if callable(script) else script:
                if (delta := await _take(step)) is not None:
                    written += len(delta.text.split())
                    finish = delta.finish_reason or finish
                    yield delta
            read = await self.count_tokens(model, messages)
            yield Delta(finish_reason=finish, prompt_tokens=read, completion_tokens=written)
            asked.ended = "finished"
        except Exception:
            asked.ended = "failed"
            raise
        finally:
            if not asked.ended:
                await asyncio.sleep(self.closing_s)
                asked.ended = "closed"

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        return await collect_answer(self.stream(model, messages, sampling))

    async def count_tokens(
        self, model: str, messages: Sequence[Message], _template: Mapping[str, Any] = NONE
    ) -> int:
        await _take(self.counting.get(model, 0.0))
        return sum(4 + len(m["content"].split()) for m in messages)

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:
        await _take(self.counting.get(model, 0.0))
        return [[match.end() for match in re.finditer(r"\s*\S+|\s+$", text)] for text in texts]

    async def is_alive(self, model: str) -> bool:
        if model in self.probing:
            await _take(self.probing[model])
        return model in self.probing

    def calls(self, model: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.model == model]


async def _take(step: Step) -> Delta | None:
    match step:
        case str():
            return Delta(text=step)
        case Delta():
            return step
        case BaseException():
            raise step
        case None:
            await asyncio.Event().wait()
        case _:
            await asyncio.sleep(step)
    return None
