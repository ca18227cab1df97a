"""Scripted models whose true effects in a mixture are known.

A text says how good it is. A model alone writes a text whose quality is drawn around the model's own;
an aggregator makes of its references their average, plus its skill, plus a bonus for each further
source among them; the judge prefers the better of two texts, the more surely the better it is. So the
true win rate of any mixture of one layer is an integral.
"""

import json
import math
import random
import re
import string
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiohttp import web

from actors.engine import NONE, Delta, Message
from benchmarks.shared.harness import HOST
from configs.schema import Recipe, Sampling
from jobs.records import Row
from jobs.variants import Variant

SPREAD = 1.0  # standard deviation of the quality of what a model writes alone
OWN_SPREAD = 0.3  # of what an aggregator makes of the same references
BONUS = 0.4  # for each further source
NODES = 40  # of the quadrature

JUDGE, BASELINE, NAME = "judge", "baseline", "known-effects"
MARK = re.compile(r"\[quality (-?\d+\.\d+), source (\w+)\]")
REFERENCE = re.compile(r"<response \d+>\n(.*?)\n</response \d+>", re.DOTALL)
VOCABULARY, WORDS = 60, 40


@dataclass(frozen=True, slots=True)
class Character:
    """quality: mean of what the model writes alone; source: whose words it uses; skill: of the model as
    an aggregator."""

    quality: float
    source: str
    skill: float = 0.0


# The better alone, the worse an aggregator, but for q60. q60-int4 does in all what q60 does.
CHARACTERS: Mapping[str, Character] = {
    "q50": Character(0.0, "a", 0.2),
    "q60": Character(0.4, "b", 0.4),
    "q70": Character(0.8, "c", -0.2),
    "q30": Character(-0.8, "a", 0.8),
    "q40": Character(-0.4, "d", 0.6),
    "q60-int4": Character(0.4, "b", 0.4),
    "q90": Character(1.6, "a", -0.6),
    BASELINE: Character(0.0, "z"),
}
PROPOSERS, AGGREGATOR = ("q50", "q60", "q70"), "q60"
CANDIDATES = tuple(name for name in CHARACTERS if name != BASELINE)
UNQUANTIZED = {"q60-int4": "q60"}


def recipe(base_url: str = "http://localhost:9/v1") -> Recipe:
    """The base mixture, with all models and the judge behind a server."""
    models = {
        name: {"engine": "openai_http", "base_url": base_url, "model": name, "context_tokens": 32768}
        for name in (*CHARACTERS, JUDGE)
    }
    return Recipe.model_validate(
        {
            "name": NAME,
            "models": models,
            "layers": [{"proposers": [{"model": name} for name in PROPOSERS]}],
            "aggregator": {"model": AGGREGATOR},
        }
    )


def questions(count: int) -> Iterator[Row]:
    """A set."""
    return (Row(n, (f"Question {n}: what is good?",)) for n in range(count))


def reply(model: str, messages: Sequence[Message], seed: int | None) -> str:
    """What a model writes: an aggregation if there are references in a system message."""
    character, question = CHARACTERS[model], messages[-1]["content"]
    draw = random.Random(f"{model}/{seed}/{json.dumps(list(messages))}")
    read = REFERENCE.findall("\n".join(m["content"] for m in messages if m["role"] == "system"))
    if read:
        marks = [_mark(text) for text in read]
        worth = sum(quality for quality, _ in marks) / len(marks)
        further = len({source for _, source in marks}) - 1
        quality = worth + character.skill + BONUS * further + draw.gauss(0, OWN_SPREAD)
    else:
        quality = draw.gauss(character.quality, SPREAD)
    vocabulary = random.Random(f"{character.source}/{question}")
    words = ["".join(vocabulary.choices(string.ascii_lowercase, k=5)) for _ in range(VOCABULARY)]
    return f"[quality {quality:.4f}, source {character.source}] " + " ".join(draw.sample(words, WORDS))


def verdict(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Log-probabilities of the judge's one token, in OpenAI's form: `m` if the first text is better."""
    marks = [float(quality) for quality, _ in MARK.findall(messages[-1]["content"])]
    above = marks[0] - marks[1] if len(marks) == 2 else 0.0
    names = [("m", -math.log1p(math.exp(-above))), ("M", -math.log1p(math.exp(above)))]
    top = [{"token": token, "logprob": value} for token, value in sorted(names, key=lambda n: -n[1])]
    return [{**top[0], "top_logprobs": top}]


def _mark(text: str) -> tuple[float, str]:
    found = MARK.search(text)
    return (float(found[1]), found[2]) if found else (0.0, "")


def true_win_rate(variant: Variant) -> float:
    """Percent against the baseline, over all rows there could be.

    The difference in quality is normal, and the judge's preference is its logistic: an integral over
    one variable, here by Gauss-Hermite quadrature.
    """
    mean, variance = _quality(variant)
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    above = mean - CHARACTERS[BASELINE].quality + nodes * math.sqrt(variance + SPREAD**2)
    return float(100 * (weights / (1 + np.exp(-above))).sum() / weights.sum())


def _quality(variant: Variant) -> tuple[float, float]:
    """Mean and variance of what the variant writes."""
    if variant.model is not None:
        return CHARACTERS[variant.model].quality, SPREAD**2
    (layer,) = variant.recipe.layers
    places = [CHARACTERS[p.model] for p in layer.proposers for _ in range(p.samples)]
    worth = sum(place.quality for place in places) / len(places)
    further = len({place.source for place in places}) - 1
    skill = CHARACTERS[variant.recipe.aggregator.model].skill
    return worth + skill + BONUS * further, SPREAD**2 / len(places) + OWN_SPREAD**2


class InProcess:
    """The models without a server. calls: how often each was asked."""

    def __init__(self) -> None:
        self.calls = Counter[str]()

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        self.calls[model] += 1
        if model == JUDGE:
            logprobs = verdict(messages)
            return Delta(logprobs[0]["token"], finish_reason="length", logprobs=tuple(logprobs))
        return Delta(reply(model, messages, sampling.seed), finish_reason="stop")

    async def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, _streamed: bool = True
    ) -> AsyncIterator[Delta]:
        yield await self.complete(model, messages, sampling)

    async def count_tokens(
        self, _model: str, messages: Sequence[Message], _template: Mapping[str, Any] = NONE
    ) -> int:
        return sum(len(message["content"].split()) for message in messages)

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:  # noqa: ARG002
        return [[word.end() for word in re.finditer(r"\S+", text)] for text in texts]

    async def is_alive(self, _model: str) -> bool:
        return True


@asynccontextmanager
async def serving(models: InProcess, port: int = 0) -> AsyncIterator[str]:
    """The models behind an OpenAI-compatible server; yields its base URL."""

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        sampling = Sampling(seed=body.get("seed"))
        whole = await models.complete(body["model"], body["messages"], sampling)
        choice = {
            "index": 0,
            "delta": {"role": "assistant", "content": whole.text},
            "finish_reason": whole.finish_reason,
            "logprobs": {"content": whole.logprobs} if whole.logprobs else None,
        }
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        usage = {
            "prompt_tokens": await models.count_tokens(body["model"], body["messages"]),
            "completion_tokens": len(whole.text.split()),
        }
        for event in ({"choices": [choice]}, {"choices": [], "usage": usage}):
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application(client_max_size=2**24)
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, port)
        await site.start()
        yield f"http://{HOST}:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()
