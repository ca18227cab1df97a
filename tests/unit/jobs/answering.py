"""A store with rows and scripted engines, for tests that answer sets."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from configs.schema import Recipe
from jobs.generate import GenerateProgress, GenerateTask, generate
from jobs.identity import to_generator
from jobs.records import Answer, Row
from jobs.store import Store
from jobs.stored_calls import CallPatience, StoredCalls
from jobs.variants import Variant, mixture
from tests.unit.scripts import Asked, FakeModels, Step


def recipe(*layers: Sequence[Any], **parts: Any) -> Recipe:
    """A recipe with these layers; by default `a` and `b` propose. `z` aggregates. `c` and `y` take no
    part; variants use them."""
    proposers = [
        {"proposers": [{"model": p} if isinstance(p, str) else p for p in layer]}
        for layer in layers or [["a", "b"]]
    ]
    models = {name: {"engine": "scripted"} for name in "abcyz"}
    base = {"name": "mix", "models": models, "layers": proposers, "aggregator": {"model": "z"}}
    return Recipe.model_validate(base | parts)


MIX = mixture(recipe())
"""The mixture that most tests answer with."""


def question(asked: Asked) -> str:
    """The last message of a call: the row's prompt, or its last turn."""
    return asked.messages[-1]["content"]


def says(asked: Asked) -> list[Step]:
    """A script: the model names itself, the question and its seed."""
    return [f"{asked.model} on {question(asked)} with {asked.sampling.seed}"]


def fails_on(prompt: str, error: Exception) -> Callable[[Asked], list[Step]]:
    """A script: the model fails on one prompt, and answers all others as `says`."""
    return lambda asked: [error] if question(asked) == prompt else says(asked)


@dataclass
class Bench:
    """A store with rows, and engines that record their calls."""

    store: Store

    models: FakeModels = field(default_factory=lambda: FakeModels(dict.fromkeys("abcyz", says)))

    seen: list[GenerateProgress] = field(default_factory=list)
    """What the last run reported after each row."""

    async def run(self, *variants: Variant, seed: int = 0, **options: Any) -> GenerateProgress:
        """Answer the store's rows with variants, by default with MIX, as one start of the program does.
        `options` are those of `GenerateTask`."""
        names = self.models.scripts
        identities = dict.fromkeys(names, "1")
        variants = variants or (MIX,)
        for variant in variants:
            self.store.add_generator(to_generator(variant, identities, seed))
        patience = CallPatience(attempts=2, unavailable_s=10)
        self.models.asked.clear()
        self.seen.clear()
        async with StoredCalls(
            self.store, self.models, identities, dict.fromkeys(names, 50), patience
        ) as calls:
            task = GenerateTask(variants, seed, **options)
            return await generate(task, self.store, calls, self.seen.append)

    def ask(self, *prompts: str) -> None:
        """Add a row for each prompt."""
        self.store.add_rows(Row(index, (prompt,)) for index, prompt in enumerate(prompts))

    @property
    def asked(self) -> dict[str, int]:
        """How often the last run called each model."""
        return dict(sorted(Counter(asked.model for asked in self.models.asked).items()))

    def answers(self, generator: str = "mix") -> list[Answer]:
        return list(self.store.answers(generator))

    def text(self, key: bytes) -> str:
        """The text of a stored call."""
        call = self.store.call(key)
        assert call is not None
        return call.whole.text
