"""A real llama.cpp reads prompts early: what it keeps, and that a call waits for one step at most."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors.engine import Delta, Message, merge
from actors.engines import llamacpp_call
from actors.replica import Replica
from configs.load import load
from configs.schema import Sampling

pytestmark = pytest.mark.weights
STEP_TOKENS = 32
GREEDY = Sampling(temperature=0, max_tokens=12)
OTHER: list[Message] = [{"role": "user", "content": "Say hello."}]


def prompt(references: int) -> list[Message]:
    """A conversation with references of about 80 tokens each behind it, as with the style `tail`."""
    texts = [f"{n}. " + f"The river number {n} is long, and it is cold in winter. " * 5 for n in "abc"]
    return [{"role": "user", "content": "Which river?\n\n" + "\n".join(texts[:references])}]


@pytest.fixture
async def replica() -> AsyncIterator[Replica]:
    """A replica on a CPU: its warm-ups run only while it has no call."""
    model = load("tiny_cpu").models["smollm2-135m"]
    changes = {"context_tokens": 1024, "concurrency": 2, "prefill_tokens": STEP_TOKENS, "threads": 2}
    replica = Replica("subject", model.model_copy(update=changes), 4)
    await replica.start()
    yield replica
    await replica.stop()


async def ask(replica: Replica, messages: list[Message]) -> Delta:
    return merge([delta async for delta in replica.stream(messages, GREEDY)])


async def test_the_call_finds_what_a_warm_up_has_read_and_writes_the_same(replica: Replica) -> None:
    cold = await ask(replica, prompt(3))
    assert cold.cached_tokens == 0
    await replica._engine.stop()  # now what it has kept is gone
    await replica._engine.start()
    two, three = [len(await replica._engine.token_ends(prompt(n))) for n in (2, 3)]
    read = await replica._engine.warm(prompt(2))  # type: ignore[attr-defined]
    assert read == two
    warm = merge([delta async for delta in replica._engine.stream(prompt(3), GREEDY)])
    assert (warm.prompt_tokens, warm.text) == (three, cold.text)
    assert two - 12 <= warm.cached_tokens <= two  # all but the turn's end, which moves


async def test_a_call_comes_after_the_step_in_which_the_warm_up_is(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, steps = asyncio.get_running_loop(), asyncio.Event()
    seen: list[tuple[str, bool, int]] = []
    """Each chunk of the engine: its kind of call, whether that call was told to end, and its tokens."""
    own = llamacpp_call.NativeCall._on_chunk

    def watched(call: llamacpp_call.NativeCall, chunk: Any) -> bool:
        kind = "warm-up" if '"max_tokens": 1,' in call._request else "call"
        read = (json.loads(chunk) if isinstance(chunk, str | bytes) else chunk).get(
            "prompt_progress", {}
        )
        seen.append((kind, call._cancelled.is_set(), read.get("processed", 0)))
        if len(seen) == 4:
            loop.call_soon_threadsafe(steps.set)
        return own(call, chunk)

    monkeypatch.setattr(llamacpp_call.NativeCall, "_on_chunk", watched)
    warming = asyncio.create_task(replica.warm(prompt(3)))
    await steps.wait()
    answer = await ask(replica, OTHER)
    assert answer.text
    assert await warming is None
    kinds = [kind for kind, _, _ in seen]
    assert kinds == sorted(kinds, reverse=True)  # the call began after the end of the warm-up
    told_to_end = [read for kind, told, read in seen if (kind, told) == ("warm-up", True)]
    assert len(told_to_end) <= 1  # at most the step in which the engine was
    processed = max(read for kind, _, read in seen if kind == "warm-up")
    assert STEP_TOKENS <= processed < len(await replica._engine.token_ends(prompt(3))) - STEP_TOKENS
    assert (await replica.stats()).warm_cancelled == 1

    seen.clear()
    steps.clear()
    warming = asyncio.create_task(replica.warm([*prompt(2), *prompt(1)]))
    await steps.wait()
    warming.cancel()  # as at the end of the layer
    kept = await ask(replica, [*prompt(2), *prompt(1)])
    assert max(read for _, _, read in seen[:4]) <= kept.cached_tokens < kept.prompt_tokens - STEP_TOKENS
