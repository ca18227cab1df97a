"""Models that follow a script, on a clock that jumps: nothing here waits for real."""

import asyncio
import copy
import re
import selectors
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from actors.engine import Delta, FinishReason, Message, whole_of
from configs.schema import Recipe, Sampling
from serve_app import moa
from serve_app.events import AnswerDelta, AnswerDone, Event, ProposalDone, Summary

QUESTION = [Message(role="user", content="What is the capital of France?")]

# A step of a script: text or a delta to write, an error to raise, seconds to pass, or None: for ever.
Step = str | Delta | BaseException | float | None
Script = Sequence[Step] | Callable[["Asked"], Sequence[Step]]


class _JumpingSelector(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits, and nothing will ever happen"
            self.now += max(0.0, timeout)
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as nothing else is left to do."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"jumping": JumpingLoop}


@dataclass
class Asked:
    """One engine call as the engine saw it. ended: "", finished, failed or closed."""

    model: str
    messages: list[Message]
    sampling: Sampling
    at: float
    ended: str = ""

    @property
    def text(self) -> str:
        return "\n".join(message["content"] for message in self.messages)


@dataclass
class FakeModels:
    """`budget.Models` by script. A word is a token, a message costs four more.

    counting: what counting a model's tokens does first. closing_s: how long an engine takes to let go.
    """

    scripts: dict[str, Script] = field(default_factory=dict)
    counting: dict[str, Step] = field(default_factory=dict)
    finish_reason: FinishReason = "stop"
    closing_s: float = 0
    asked: list[Asked] = field(default_factory=list)

    async def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncIterator[Delta]:
        now = asyncio.get_running_loop().time()
        asked = Asked(model, copy.deepcopy(list(messages)), sampling, now)
        self.asked.append(asked)
        script = self.scripts[model]
        written = 0
        try:
            for step in script(asked) if callable(script) else script:
                if (delta := await _take(step)) is not None:
                    written += len(delta.text.split())
                    yield delta
            read = await self.count_tokens(model, messages)
            yield Delta(finish_reason=self.finish_reason, prompt_tokens=read, completion_tokens=written)
            asked.ended = "finished"
        except Exception:
            asked.ended = "failed"
            raise
        finally:
            if not asked.ended:
                await asyncio.sleep(self.closing_s)
                asked.ended = "closed"

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        return await whole_of(self.stream(model, messages, sampling))

    async def count_tokens(self, model: str, messages: Sequence[Message]) -> int:
        await _take(self.counting.get(model, 0.0))
        return sum(4 + len(m["content"].split()) for m in messages)

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:
        await _take(self.counting.get(model, 0.0))
        return [[match.end() for match in re.finditer(r"\s*\S+|\s+$", text)] for text in texts]

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


@dataclass
class Outcome:
    """Everything that an answer said. seconds: that it took, on the jumping clock."""

    events: list[Event]
    seconds: float

    @property
    def summary(self) -> Summary:
        last = self.events[-1]
        assert isinstance(last, AnswerDone)
        return last.summary

    @property
    def text(self) -> str:
        return "".join(e.delta.text for e in self.events if isinstance(e, AnswerDelta))

    @property
    def proposals(self) -> list[str]:
        return [e.text for e in self.events if isinstance(e, ProposalDone)]

    @property
    def missing(self) -> list[tuple[int, str, str]]:
        return [(m.layer, m.model, m.cause) for m in self.summary.missing]


class Mixture:
    """A recipe of scripted models: by default `a` and `b` propose, `z` aggregates, all at once."""

    def __init__(self, models: FakeModels) -> None:
        self.models = models
        models.scripts |= {"a": ["from a"], "b": ["from b"], "z": ["the ", "answer"]}

    def recipe(
        self,
        *layers: Sequence[str | Mapping[str, Any]],
        context_tokens: Mapping[str, int] | None = None,
        aggregator: Mapping[str, Any] | None = None,
        references: Mapping[str, Any] | None = None,
        **limits: Any,
    ) -> Recipe:
        contexts = context_tokens or {}
        places = [
            {"proposers": [{"model": p} if isinstance(p, str) else p for p in layer]}
            for layer in layers or [["a", "b"]]
        ]
        return Recipe.model_validate(
            {
                "name": "mix",
                "models": {
                    name: {"engine": "scripted", "context_tokens": contexts.get(name, 4096)}
                    for name in self.models.scripts
                },
                "layers": places,
                "aggregator": {"model": "z", **(aggregator or {})},
                "references": references or {},
                "limits": {"deadline_s": 100, "layer_deadline_s": 30, **limits},
            }
        )

    async def answer(
        self, recipe: Recipe | None = None, messages: Sequence[Message] = QUESTION, **options: Any
    ) -> Outcome:
        """Have a question answered to the end."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        answered = moa.answer(messages, recipe or self.recipe(), self.models, **options)
        return Outcome([event async for event in answered], loop.time() - began)


@pytest.fixture
def mixture() -> Mixture:
    return Mixture(FakeModels())
