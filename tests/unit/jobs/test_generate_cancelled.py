"""A run that is cancelled at any moment: the next one loses nothing and repeats nothing."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from actors.engine import NONE, Delta, Message
from configs.schema import Recipe, Sampling
from jobs.generate import GenerateProgress, GenerateTask, generate
from jobs.identity import to_generator
from jobs.records import Row
from jobs.store import Store
from jobs.stored_calls import StoredCalls
from jobs.variants import mixture

ROWS, TURNS = 12, 2
MODELS = ("a", "b", "z")
Key = tuple[str, str, int | None]
MIX = mixture(
    Recipe.model_validate(
        {
            "name": "mix",
            "models": {name: {"engine": "scripted"} for name in MODELS},
            "layers": [{"proposers": [{"model": "a"}, {"model": "b"}]}],
            "aggregator": {"model": "z"},
        }
    )
)


@dataclass
class Engines:
    """Engines that finish a number of calls; all later calls hang."""

    most: int
    """How many calls are finished."""

    finished: Counter[Key] = field(default_factory=Counter)
    """How often each call was finished."""

    exhausted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a call hangs."""

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        await asyncio.sleep(0)
        if self.finished.total() >= self.most:
            self.exhausted.set()
            await asyncio.Event().wait()
        text = "/".join(message["content"] for message in messages)
        self.finished[model, text, sampling.seed] += 1
        return Delta(f"{model} {sampling.seed}", finish_reason="stop", completion_tokens=2)

    async def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, _streamed: bool = True
    ) -> AsyncIterator[Delta]:
        yield await self.complete(model, messages, sampling)

    async def count_tokens(
        self, _model: str, messages: Sequence[Message], _template: Mapping[str, Any] = NONE
    ) -> int:
        return len(messages)

    async def token_ends(self, _model: str, texts: Sequence[str]) -> list[list[int]]:
        return [[len(text)] for text in texts]

    async def is_alive(self, _model: str) -> bool:
        return True


async def answer(store: Store, engines: Engines) -> GenerateProgress:
    identities = dict.fromkeys(MODELS, "1")
    store.add_generator(to_generator(MIX, identities, 0))
    async with StoredCalls(store, engines, identities, dict.fromkeys(MODELS, 5)) as calls:
        return await generate(GenerateTask([MIX], in_flight=4), store, calls)


@pytest.mark.parametrize("most", [0, 1, 2, 3, 7, 20, 40, ROWS * TURNS * len(MODELS) - 1])
async def test_after_a_cancellation_nothing_that_was_kept_is_asked_again(
    tmp_path: Path, most: int
) -> None:
    cut_off = Engines(most)
    with Store.open(tmp_path) as store:
        store.add_rows(
            Row(n, tuple(f"row {n} turn {turn}" for turn in range(TURNS))) for n in range(ROWS)
        )
        answering = asyncio.create_task(answer(store, cut_off))
        await cut_off.exhausted.wait()
        answering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answering
    whole = Engines(10**9)
    with Store.open(tmp_path) as store:
        kept = [found for found in store.answers("mix") if found.used]
        assert all(store.call(used.key) for found in kept for used in found.used)
        assert await answer(store, whole) == GenerateProgress(rows=ROWS, answered=ROWS)
        answers = list(store.answers("mix"))
        assert [(found.row, found.turn) for found in answers] == [
            (row, turn) for row in range(ROWS) for turn in range(TURNS)
        ]
        assert [found for found in answers if found in kept] == kept
        assert {len(found.used) for found in answers} == {len(MODELS)}
    # Even what an engine had finished and nobody waited for any more was kept.
    together = cut_off.finished + whole.finished
    assert len(together) == ROWS * TURNS * len(MODELS)
    assert set(together.values()) == {1}
