"""The whole mixture through Ray Serve and its HTTP endpoint, as a user has it."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from benchmarks.real_cards.bench import Bench
from cluster import ray_runtime
from configs.schema import Recipe

HOST = "127.0.0.1"
QUESTIONS = 8


async def check(bench: Bench) -> AsyncIterator[tuple[Any, ...]]:
    """One question alone, then several at once: the turns should be paid once, not each time."""
    from serve_app.app import BuildArgs, build

    recipe = bench.recipe
    port = _free_port()
    ray_runtime.connect(None, verbose=False)
    try:
        began = time.perf_counter()
        application = build(BuildArgs(recipe=recipe, follow_nodes=False, host=HOST, port=port))
        await asyncio.to_thread(ray_runtime.deploy, application, ray_runtime.APP_NAME)
        yield "all models started", "", f"{time.perf_counter() - began:.1f} s", None
        url = f"http://{HOST}:{port}/v1/chat/completions"
        alone, answered = await _ask(url, recipe, 1)
        yield "one question: seconds", "", f"{alone:.1f} s", answered == 1
        together, answered = await _ask(url, recipe, QUESTIONS)
        yield f"{QUESTIONS} questions at once: all answered", "", f"{answered}", answered == QUESTIONS
        bound = QUESTIONS * alone
        good = together < bound
        yield f"{QUESTIONS} questions at once: seconds", f"{bound:.1f} s", f"{together:.1f} s", good
    finally:
        ray_runtime.disconnect(ray_runtime.APP_NAME, local=True)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


async def _ask(url: str, recipe: Recipe, count: int) -> tuple[float, int]:
    """Seconds until all answers were there, and how many were whole: nobody missing from them."""
    timeout = aiohttp.ClientTimeout(total=recipe.limits.deadline_s)
    began = time.perf_counter()
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def ask(number: int) -> bool:
            message = {"role": "user", "content": f"Question {number}: what is a river?"}
            body = {"model": recipe.name, "messages": [message]}
            async with session.post(url, json=body) as response:
                answer = json.loads(await response.text())
            if response.status != 200:
                raise RuntimeError(f"HTTP {response.status}: {answer}")
            return answer["moa"]["degraded"] is False

        whole = await asyncio.gather(*[ask(number) for number in range(count)])
    return time.perf_counter() - began, sum(whole)
