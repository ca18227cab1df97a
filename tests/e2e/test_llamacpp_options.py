"""Options of llama.cpp with real weights: speculation, KV types, split files; refusals with causes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.engine import Delta, Message, Share, merge
from actors.engines.llamacpp import LlamaCppEngine
from actors.weights.files import cached, fetch
from configs.errors import BadRequest, EngineUnavailable
from configs.load import load
from configs.schema import LlamaCppModel, Sampling
from tests.e2e.gguf_edit import STRING, UINT32, edited, split

pytestmark = pytest.mark.weights

MODELS = load("tiny_cpu").models
LIST = " ".join(f"Item {n} costs {n * n} coins." for n in range(1, 9))
QUESTION: list[Message] = [{"role": "user", "content": f"Repeat this text, word for word: {LIST}"}]
DRAFT = {"method": "draft", "tokens": 4}


@pytest.fixture(scope="module")
def smollm() -> Path:
    model = MODELS["smollm2-135m"]
    assert isinstance(model, LlamaCppModel)
    return fetch("smollm2-135m", model.weights)


@asynccontextmanager
async def engine(path: Path, *, on_gpu: bool = False, **settings: Any) -> AsyncIterator[LlamaCppEngine]:
    usual = {"engine": "llamacpp", "context_tokens": 1024, "concurrency": 2}
    model = LlamaCppModel.model_validate(usual | {"weights": [{"path": str(path)}]} | settings)
    engine = LlamaCppEngine("m", model, Share(threads=2, on_gpu=on_gpu))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def answer(engine: LlamaCppEngine, **sampling: Any) -> Delta:
    settings = Sampling(**({"max_tokens": 40, "temperature": 0} | sampling))
    return merge([delta async for delta in engine.stream(QUESTION, settings)])


async def answers(path: Path, **settings: Any) -> dict[str, Delta]:
    async with engine(path, **settings) as running:
        return {
            "greedy": await answer(running),
            "short": await answer(running, max_tokens=5),
            "stopped": await answer(running, stop=["coins"]),
            "logprobs": await answer(running, top_logprobs=2, max_tokens=1),
        }


@pytest.fixture(scope="module")
def plain(smollm: Path) -> dict[str, Delta]:
    """Answers without any option."""
    return asyncio.run(answers(smollm))


@pytest.mark.parametrize("method", ["ngram", "draft"])
async def test_speculation_changes_no_greedy_answer(
    smollm: Path, plain: dict[str, Delta], method: str
) -> None:
    guess = DRAFT | {"draft": [{"path": str(smollm)}]} if method == "draft" else "ngram"
    assert await answers(smollm, speculation=guess) == plain
    async with engine(smollm, speculation=guess) as running:  # whose log-probabilities are no numbers
        with pytest.raises(BadRequest, match="tells no logprobs while it speculates"):
            await answer(running, top_logprobs=2, max_tokens=2)


async def test_a_draft_model_with_another_vocabulary_is_refused(smollm: Path) -> None:
    other = MODELS["qwen2.5-coder-0.5b"]
    assert isinstance(other, LlamaCppModel)
    if (path := cached(other.weights)) is None:
        pytest.skip("its weights are not in the cache")
    why = r"cannot speculate with these settings: .*vocab"
    with pytest.raises(EngineUnavailable, match=why):
        async with engine(smollm, speculation=DRAFT | {"draft": [{"path": str(path)}]}):
            pass


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
async def test_a_quantized_cache_answers(smollm: Path, kind: str) -> None:
    async with engine(smollm, kv_cache_type=kind, flash_attention="on") as running:
        assert (await answer(running)).completion_tokens > 3


async def test_a_split_file_answers_like_the_whole(
    smollm: Path, plain: dict[str, Delta], tmp_path: Path
) -> None:
    files = split(smollm, tmp_path, 3)
    async with engine(files[1]) as running:  # any part names the file
        assert await answer(running) == plain["greedy"]
    files[2].unlink()
    with pytest.raises(Exception, match=r"-00003-of-00003\.gguf: there is no such file"):
        async with engine(files[0]):
            pass


@pytest.mark.parametrize(
    ("metadata", "cause"),
    [
        ({"general.architecture": (STRING, b"llamb")}, "unknown model architecture: 'llamb'"),
        ({"llama.pooling_type": (UINT32, 1)}, "it is a model of embeddings or a reranker"),
        ({"llama.attention.head_count": (UINT32, 7)}, "invalid n_rot"),
    ],
    ids=["architecture", "embeddings", "shape"],
)
async def test_a_file_that_cannot_be_served_is_refused_with_the_cause(
    smollm: Path, tmp_path: Path, metadata: dict[str, Any], cause: str
) -> None:
    broken = edited(smollm, tmp_path / "broken.gguf", metadata=metadata)
    with pytest.raises(EngineUnavailable) as caught:
        async with engine(broken):
            pass
    assert str(caught.value).startswith(f"llama.cpp cannot load {broken}: ")
    assert cause in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_layers_on_a_gpu_that_the_build_cannot_use_are_refused(smollm: Path) -> None:
    with pytest.raises(
        EngineUnavailable, match=r"gpu_layers is 12, and this build of llama\.cpp cannot"
    ):
        async with engine(smollm, on_gpu=True, gpu_layers=12):
            pass
    async with engine(smollm, on_gpu=True) as running:  # by default the CPU has to do
        assert (await answer(running, max_tokens=2)).completion_tokens == 2
