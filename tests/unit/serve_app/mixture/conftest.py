"""The mixture over models that follow a script, on a clock that jumps: nothing here waits for real."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from actors.engine import Message
from configs.schema import Recipe
from serve_app.mixture import moa
from serve_app.mixture.events import (
    AnswerDelta,
    AnswerDone,
    Answered,
    Event,
    ProposalDone,
    ProposalDropped,
    Summary,
)
from tests.unit.scripts import FakeModels

QUESTION = [Message(role="user", content="What is the capital of France?")]


@dataclass
class Outcome:
    """An answer, read to its end."""

    events: list[Event]
    seconds: float
    """Time that it took, on the jumping clock."""

    @property
    def summary(self) -> Summary:
        last = self.events[-1]
        assert isinstance(last, AnswerDone)
        return last.summary

    @property
    def text(self) -> str:
        return "".join(e.delta.text for e in self.events if isinstance(e, AnswerDelta))

    @property
    def answered(self) -> Answered:
        return self.summary.answered

    @property
    def dropped(self) -> list[tuple[str, str]]:
        """The model of each sample that was left out, and why."""
        drops = [e.missing for e in self.events if isinstance(e, ProposalDropped)]
        return [(missing.model, missing.cause) for missing in drops]

    @property
    def proposals(self) -> list[str]:
        return [e.text for e in self.events if isinstance(e, ProposalDone)]

    @property
    def missing(self) -> list[tuple[int, str, str]]:
        return [(m.layer, m.model, m.cause) for m in self.summary.missing]


class Mixture:
    """A recipe of scripted models: by default `a` and `b` propose and `z` aggregates, in no time."""

    def __init__(self, models: FakeModels) -> None:
        self.models = models
        models.scripts |= {"a": ["from a"], "b": ["from b"], "z": ["the ", "answer"]}

    def recipe(
        self,
        *layers: Sequence[str | Mapping[str, Any]] | Mapping[str, Any],
        context_tokens: Mapping[str, int] | None = None,
        aggregator: Mapping[str, Any] | None = None,
        references: Mapping[str, Any] | None = None,
        parts: Mapping[str, Any] | None = None,
        **limits: Any,
    ) -> Recipe:
        contexts = context_tokens or {}
        proposers = [
            layer
            if isinstance(layer, Mapping)
            else {"proposers": [{"model": p} if isinstance(p, str) else p for p in layer]}
            for layer in layers or [["a", "b"]]
        ]
        return Recipe.model_validate(
            {
                "name": "mix",
                "models": {
                    name: {"engine": "scripted", "context_tokens": contexts.get(name, 4096)}
                    for name in self.models.scripts
                },
                "layers": proposers,
                "aggregator": {"model": "z", **(aggregator or {})},
                "references": references or {},
                "limits": {"deadline_s": 100, "layer_deadline_s": 30, **limits},
                **(parts or {}),
            }
        )

    async def answer(
        self, recipe: Recipe | None = None, messages: Sequence[Message] = QUESTION, **options: Any
    ) -> Outcome:
        """Ask a question and read the answer to its end."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        answered = moa.answer(messages, recipe or self.recipe(), self.models, **options)
        return Outcome([event async for event in answered], loop.time() - began)


@pytest.fixture
def mixture() -> Mixture:
    return Mixture(FakeModels())
