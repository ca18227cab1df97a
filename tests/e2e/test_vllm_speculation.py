"""vLLM on this CPU repeats a text of its prompt, with speculation by n-grams and without."""

import time
from importlib.util import find_spec
from typing import Any

import pytest

from actors.engine import Message, Share, merge
from configs.schema import Sampling, VllmModel
from tests.e2e import vllm_folders

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: see docs/vllm.md"),
]

REFERENCE = (
    "The sky is blue because molecules of the air scatter blue light from the sun more than they "
    "scatter red light. This is called Rayleigh scattering. At sunset the light passes through more "
    "air, so that most of the blue light is scattered away and the sky looks red."
)
MESSAGES: list[Message] = [
    {"role": "system", "content": f"Write one answer from these:\n1. {REFERENCE}\n2. {REFERENCE}"},
    {"role": "user", "content": "Why is the sky blue? Repeat the best answer word by word."},
]


async def answer(**settings: Any) -> tuple[str, float]:
    """The greedy text, and tokens per second after the first."""
    from actors.engines.vllm import create

    base = vllm_folders.checkpoint("smollm2-135m")
    model = VllmModel.model_validate(
        {
            "engine": "vllm",
            "weights": [{"path": str(base)}],
            "dtype": "bfloat16",
            "context_tokens": 1024,
            "concurrency": 1,
            "eager": True,
        }
        | settings
    )
    engine = create("writer", model, Share(threads=2))
    await engine.start()
    try:
        sampling = Sampling(max_tokens=96, temperature=0)
        _ = [delta async for delta in engine.stream(MESSAGES, sampling)]
        first, deltas = 0.0, []
        async for delta in engine.stream(MESSAGES, sampling):
            first = first or time.perf_counter()
            deltas.append(delta)
        whole = merge(deltas)
        return whole.text, whole.completion_tokens / (time.perf_counter() - first)
    finally:
        await engine.stop()


async def test_greedy_texts_are_equal_with_and_without_speculation() -> None:
    plain, speed = await answer()
    guessed, faster = await answer(speculation={"method": "ngram", "tokens": 6})
    print(f"\nwithout: {speed:.1f} tokens/s, with n-grams: {faster:.1f} tokens/s\n{plain}")
    assert guessed == plain
