"""A real exchange with the API, recorded without a server for docs/api.md.

Scripted models answer in virtual time, so the recording is the same on every machine, times included.
"""

import asyncio
import json
import re
from typing import Any
from unittest.mock import patch

import httpx

from configs.schema import Recipe
from serve_app.http.api import create_api
from tests.unit.scripts import JumpingLoop
from tests.unit.serve_app.conftest import CHAT, Scripted

RECIPE = Recipe.model_validate(
    {
        "name": "sky",
        "models": {
            "quick": {"engine": "scripted", "text": "It is blue."},
            "slow": {"engine": "scripted", "text": "Blue, mostly.", "first_token_s": 0.08},
            "broken": {"engine": "scripted", "fail_share": 1},
            "writer": {"engine": "scripted", "text": "The sky is blue."},
        },
        "layers": [{"proposers": [{"model": "quick"}, {"model": "slow"}, {"model": "broken"}]}],
        "aggregator": {"model": "writer"},
    }
)
REQUEST: dict[str, Any] = {
    "model": "sky",
    "messages": [{"role": "user", "content": "What colour is the sky?"}],
    "seed": 1,
    "moa": {"events": True},
}
STREAMED: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
SAME_IN_ALL = re.compile(r'"id":"[^"]*",|,"created":\d+,"model":"[^"]*","object":"[^"]*"(?=[,}])')


def stream() -> str:
    """The server-sent events that answer `REQUEST | STREAMED`, one a line.

    What is the same in all chunks is left out of all but the first.
    """
    first, *others = _exchange(REQUEST | STREAMED).strip().split("\n\n")
    return "\n".join([first, *(SAME_IN_ALL.sub("", event) for event in others)]) + "\n"


def answer() -> dict[str, Any]:
    """The answer to `REQUEST` in one piece."""
    whole: dict[str, Any] = json.loads(_exchange(REQUEST))
    return whole


def _exchange(request: dict[str, Any]) -> str:
    # Replicas time their engines by perf_counter. It has to be the clock on which the engines wait.
    loop = JumpingLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner, patch("time.perf_counter", loop.time):
        text = runner.run(_answer(request))
    text = re.sub(r'"chatcmpl-[0-9a-f]{32}"', '"chatcmpl-0123"', text)
    return re.sub(r'"created":\d+', '"created":0', text)


async def _answer(request: dict[str, Any]) -> str:
    models = Scripted(RECIPE)
    await models.start()
    transport = httpx.ASGITransport(create_api(RECIPE, models))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return (await client.post(CHAT, json=request)).text
