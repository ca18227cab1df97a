"""The mixture of the chaos run, whose every answer can be computed: its recipe, one model's server, and
what a request must be answered.

    python -m benchmarks.faults.chaos_models PORT CARDS    the server of model REMOTE, as the others
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from actors.engine import NONE, Delta, Message, collect_answer
from actors.engines.scripted import ScriptedEngine
from actors.replica import ReplicaStats
from benchmarks.shared.harness import HOST
from benchmarks.shared.open_loop import question
from configs.errors import EngineUnavailable
from configs.schema import Recipe, Sampling, ScriptedModel
from serve_app.http.api import create_api
from serve_app.http.listener import Listener
from serve_app.mixture import moa
from serve_app.mixture.events import AnswerDelta

PROPOSERS, REMOTE, WRITER = ("first", "second"), "remote", "writer"
CONCURRENCY = 4
PER_S = 8.0
"""Answers per second of all cards: what more of them bring, slower engines take, for all run here."""
MODEL_BYTES = 16_000_000_000
DEADLINE_S, LAYER_DEADLINE_S = 30.0, 15.0
TOKENS = 11


def slots(cards: int) -> int:
    """Calls of each model that run at a time."""
    return cards * CONCURRENCY


def call_s(cards: int) -> float:
    """Seconds that an engine takes for a call, so that all together give PER_S."""
    return slots(cards) / PER_S


def scripted(cards: int) -> dict[str, Any]:
    """The settings of an engine."""
    half_s = call_s(cards) / 2
    pace = {"first_token_s": half_s, "token_s": half_s / (TOKENS - 1)}
    return {"engine": "scripted", "concurrency": CONCURRENCY, "tokens": TOKENS} | pace


def recipe(server_url: str, cards: int) -> Recipe:
    """Two proposers and an aggregator with a replica on each card, and a proposer behind a server.

    The server stands for an engine that runs outside of its replica.
    """
    on_cards = scripted(cards) | {"weight_bytes": MODEL_BYTES}
    remote = {"engine": "openai_http", "base_url": f"{server_url}/v1", "model": REMOTE}
    shared = {"concurrency": CONCURRENCY, "replicas": cards}
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": dict.fromkeys((*PROPOSERS, WRITER), on_cards) | {REMOTE: remote | shared},
            "layers": [{"proposers": [{"model": name} for name in (*PROPOSERS, REMOTE)]}],
            "aggregator": {"model": WRITER},
            "limits": {"deadline_s": DEADLINE_S, "layer_deadline_s": LAYER_DEADLINE_S},
        }
    )


class Engines:
    """The models in this process. gone: those that fail every call."""

    def __init__(self, model: ScriptedModel, names: Sequence[str]) -> None:
        self._engines = {name: ScriptedEngine(name, model) for name in names}
        self.gone: Collection[str] = ()

    async def start(self) -> None:
        for engine in self._engines.values():
            await engine.start()

    async def stream(
        self,
        model: str,
        messages: Sequence[Message],
        sampling: Sampling,
        streamed: bool = True,
    ) -> AsyncIterator[Delta]:
        if model in self.gone:
            raise EngineUnavailable("it is gone", model=model)
        async for delta in self._engines[model].stream(messages, sampling, streamed):
            yield delta

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        return await collect_answer(self.stream(model, messages, sampling, False))

    async def count_tokens(
        self, model: str, messages: Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> int:
        return len(await self._engines[model].token_ends(messages, template))

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:
        return [await self._engines[model].token_ends(text) for text in texts]

    async def is_alive(self, model: str) -> bool:
        return model not in self.gone

    async def stats(self, model: str) -> ReplicaStats:  # noqa: ARG002
        return ReplicaStats(*[0] * len(ReplicaStats.__slots__))


class Oracle:
    """Knows what the mixture says to a request if some of its models are missing."""

    def __init__(self, mixture: Recipe) -> None:
        self._recipe = mixture
        at_once = scripted(1) | {"first_token_s": 0, "token_s": 0}
        self._engines = Engines(ScriptedModel.model_validate(at_once), list(mixture.models))

    async def start(self) -> None:
        await self._engines.start()

    async def says(self, number: int, missing: Collection[str]) -> str:
        """The answer's text. number: of the request; missing: models that gave nothing to it."""
        self._engines.gone = missing
        messages: list[Message] = [{"role": "user", "content": question(number)}]
        events = moa.answer(
            messages, self._recipe, self._engines, seed=number, streamed=False, stream_proposals=False
        )
        return "".join([e.delta.text async for e in events if isinstance(e, AnswerDelta)])


async def serve(port: int, cards: int) -> None:
    """Answer as model REMOTE until the process ends."""
    alone = Recipe.model_validate(
        {
            "name": "server",
            "models": {REMOTE: scripted(cards) | {"concurrency": slots(cards)}},
            "layers": [{"proposers": [{"model": REMOTE}]}],
            "aggregator": {"model": REMOTE},
        }
    )
    model = alone.models[REMOTE]
    assert isinstance(model, ScriptedModel)
    engines = Engines(model, [REMOTE])
    await engines.start()
    await Listener(create_api(alone, engines), HOST, port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(*map(int, sys.argv[1:])))
