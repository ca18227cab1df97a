"""A recipe that `slimmoa check` accepts without a warning degrades no answer on an idle server.

The recipes are drawn at random. Each is served by real replicas, with their real queues, over scripted
engines and on a clock that jumps; there is no Ray and no keeper of cards.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from actors.engine import NONE, Delta, Message, collect_answer
from actors.replica import Replica
from configs.errors import RequestError
from configs.limit_checks import cautions, contradictions
from configs.problem import Problem
from configs.schema import Recipe, Sampling
from configs.void_settings import void_settings
from serve_app.mixture import moa
from serve_app.mixture.events import AnswerDone
from tests.unit.scripts import JumpingLoop

QUESTION = [Message(role="user", content="What is the capital of France?")]
NAMES = ("a", "b", "c")
EXAMPLES = 150
ALWAYS = ("is always late", "is always dropped", "so it never answers")
"""Parts of the warnings after which no answer can be whole."""


class IdleServer:
    """The replicas of a recipe behind `mixture.models.Models`. A call goes to the replica of the model
    that has the fewest calls, as over connections."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._replicas = {
            name: [Replica(name, model, recipe.queue_limit(name)) for _ in range(model.replicas.min)]
            for name, model in recipe.models.items()
        }
        self._calls = {name: [0] * len(found) for name, found in self._replicas.items()}

    async def start(self) -> None:
        for replica in self._all():
            await replica.start()

    async def stop(self) -> None:
        for replica in self._all():
            await replica.stop()

    def _all(self) -> list[Replica]:
        return [replica for found in self._replicas.values() for replica in found]

    async def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> Any:
        counts = self._calls[model]
        chosen = random.choice([n for n, count in enumerate(counts) if count == min(counts)])
        counts[chosen] += 1
        try:
            async for delta in self._replicas[model][chosen].stream(messages, sampling, streamed):
                yield delta
        finally:
            counts[chosen] -= 1

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        return await collect_answer(self.stream(model, messages, sampling, False))

    async def count_tokens(
        self, model: str, messages: Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> int:
        return await self._replicas[model][0].count_tokens(messages, template)

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:
        return await self._replicas[model][0].token_ends(texts)

    async def is_alive(self, _model: str) -> bool:
        return True


async def fault(recipe: Recipe) -> str:
    """What is missing from an answer of the idle server; "" if it is whole."""
    server = IdleServer(recipe)
    await server.start()
    try:
        events = [event async for event in moa.answer(QUESTION, recipe, server)]
    except RequestError as error:
        return error.message
    finally:
        await server.stop()
    done = events[-1]
    assert isinstance(done, AnswerDone)
    return repr(done.summary) if done.summary.degraded else ""


def ask(recipe: Recipe) -> str:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(fault(recipe))


def warnings(recipe: Recipe) -> list[Problem]:
    return [*cautions(recipe), *void_settings(recipe)]


def optional(**given: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=given)


def one_of(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


MODELS = st.fixed_dictionaries(
    {"engine": st.just("scripted")},
    optional={
        "context_tokens": one_of(128, 300, 512, 1024, 8192, 8192, 8192),
        "concurrency": one_of(1, 2, 4, 8),
        "replicas": one_of(1, 2),
        "tokens": one_of(0, 1, 24, 200),
        "first_token_s": one_of(0, 0.05, 1, 6),
        "token_s": one_of(0, 0.002, 0.1),
        "text": one_of("", " ", "Paris, said the man"),
    },
)
SAMPLINGS = optional(
    max_tokens=one_of(1, 16, 64, 512), temperature=one_of(0, 0.7), seed=one_of(1, 2, 7)
)
PROPOSERS = st.fixed_dictionaries(
    {"model": st.sampled_from(NAMES)}, optional={"samples": one_of(1, 2, 3, 9), "sampling": SAMPLINGS}
)
RECIPES = st.fixed_dictionaries(
    {
        "name": st.just("mix"),
        "models": st.fixed_dictionaries(dict.fromkeys(NAMES, MODELS)),
        "layers": st.lists(
            st.fixed_dictionaries({"proposers": st.lists(PROPOSERS, min_size=1, max_size=3)}),
            min_size=1,
            max_size=2,
        ),
        "aggregator": st.fixed_dictionaries(
            {"model": st.sampled_from(NAMES)},
            optional={"first_token_timeout_s": one_of(0.5, 10), "sampling": SAMPLINGS},
        ),
    },
    optional={
        "limits": optional(
            deadline_s=one_of(8, 100, 300),
            layer_deadline_s=one_of(0.5, 3, 40),
            quorum=one_of(1, 1, 2, 3),
            grace_s=one_of(0, 0.5, 5),
            queue=one_of(0, 1, 2, 8),
        )
    },
)


def read(data: dict[str, Any]) -> Recipe | None:
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        if error.errors()[0]["type"] != "inconsistent":
            raise
        return None
    return None if contradictions(recipe) else recipe


def test_a_recipe_without_a_warning_degrades_no_answer() -> None:
    seen = {"whole": 0, "warned": 0, "refused": 0}

    @settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(RECIPES)
    def check(data: dict[str, Any]) -> None:
        recipe = read(data)
        if recipe is None:
            seen["refused"] += 1
            return
        found = warnings(recipe)
        seen["warned" if found else "whole"] += 1
        if not found:
            assert ask(recipe) == ""
        elif any(part in each.message for each in found for part in ALWAYS):
            assert ask(recipe) != "", found

    check()
    assert min(seen.values()) >= EXAMPLES // 15, seen  # else the test would show nothing


def scripted(**changes: Any) -> dict[str, Any]:
    """A recipe in which one answer makes 6 calls of model `a` at a time."""
    return {
        "name": "mix",
        "models": {"a": {"engine": "scripted", "concurrency": 1, **changes.pop("model", {})}},
        "layers": [{"proposers": [{"model": "a", "samples": 6}]}],
        "aggregator": {"model": "a"},
        "limits": changes,
    }


def test_by_default_one_answers_calls_of_a_model_have_room() -> None:
    """With a concurrency of 1 the queue of 3 calls was too short for 6 samples."""
    recipe = read(scripted())
    assert recipe is not None
    assert recipe.queue_limit("a") == 6
    assert warnings(recipe) == []
    assert ask(recipe) == ""


def test_a_queue_below_one_answers_calls_is_refused_just_below_its_limit() -> None:
    assert read(scripted(queue=4)) is None
    recipe = read(scripted(queue=5))
    assert recipe is not None
    assert ask(recipe) == ""
