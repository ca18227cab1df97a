"""Bytes of an engine, against figures worked out by hand or published."""

from dataclasses import replace
from typing import Any

import pytest

from cluster.cards.card import GIB, MIB
from cluster.plan.checkpoint import Attention, Checkpoint, from_shapes
from cluster.plan.footprint import CUDA_CONTEXT, PROCESSES, footprint, gib, kv_bytes
from configs.schema import LlamaCppModel, ScriptedModel, VllmModel


def checkpoint(hub: str) -> Checkpoint:
    found = from_shapes(hub)
    assert found is not None
    return found


LLAMA_70B = checkpoint("hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4")
LLAMA_8B = checkpoint("meta-llama/Llama-3.1-8B-Instruct")
GEMMA = checkpoint("wzhouad/gemma-2-9b-it-WPO-HB")


def vllm(**settings: Any) -> VllmModel:
    return VllmModel.model_validate(
        {"engine": "vllm", "weights": [{"hub": "a/b"}], "context_tokens": 4096} | settings
    )


def llamacpp(**settings: Any) -> LlamaCppModel:
    return LlamaCppModel.model_validate(
        {"engine": "llamacpp", "weights": [{"path": "x.gguf"}], "context_tokens": 4096} | settings
    )


@pytest.mark.parametrize(
    ("what", "tokens", "expected"),
    [
        (LLAMA_70B, 1, 80 * 2 * 8 * 128 * 2),  # 320 KiB a token: grouped-query attention
        (LLAMA_8B, 4096, 512 * MIB),
        (checkpoint("Qwen/Qwen1.5-72B-Chat-AWQ"), 1, 80 * 2 * 64 * 128 * 2),  # a cache for every head
        # Gemma 2: 21 layers of 8,192 tokens, 21 of the window and one step of 2,048.
        (GEMMA, 8192, 21 * (8192 + 4096 + 2048) * 2 * 8 * 256 * 2),
        (GEMMA, 4096, 42 * 4096 * 2 * 8 * 256 * 2),
    ],
)
def test_cache_of_one_sequence(what: Checkpoint, tokens: int, expected: int) -> None:
    assert kv_bytes(what, tokens, 2048, 2) == expected


@pytest.mark.parametrize(
    ("settings", "blocks", "value_bytes"),
    [  # a block has 16 tokens, and one block stays empty
        ({"concurrency": 8}, 8 * 256 + 1, 2),
        ({"concurrency": 8, "kv_cache_dtype": "fp8"}, 8 * 256 + 1, 1),
        ({"concurrency": 8, "dtype": "float32"}, 8 * 256 + 1, 4),
        # Two whole contexts, one of 1,808 tokens, and for 21 more sequences a block that is not full.
        ({"concurrency": 24, "kv_tokens": 10_000}, 2 * 256 + 113 + 21 + 1, 2),
        # vLLM insists on one whole context.
        ({"concurrency": 24, "kv_tokens": 500}, 256 + 23 + 1, 2),
    ],
)
def test_cache_of_a_vllm_engine(settings: dict[str, Any], blocks: int, value_bytes: int) -> None:
    per_token = 80 * 2 * 8 * 128 * value_bytes
    assert footprint(vllm(**settings), LLAMA_70B, "gpu").kv == 16 * blocks * per_token


def test_vllm_pads_the_groups_of_layers_with_and_without_a_window() -> None:
    # Gemma-3-like: 4 full layers and 22 with a window become 7 groups of 4.
    uneven, even = (
        replace(GEMMA, layers=26, attention=(Attention(4, 4096), Attention(windows, 4096, 512)))
        for windows in (22, 24)
    )
    assert footprint(vllm(), uneven, "gpu").kv == footprint(vllm(), even, "gpu").kv


def test_activations_agree_with_a_published_start_up_log() -> None:
    # vllm#10511: Llama-3-8B, 8,192 tokens a step, 256 sequences: "PyTorch activation peak 1.26GiB".
    found = footprint(vllm(batch_tokens=8192, concurrency=1), LLAMA_8B, "gpu")
    assert found.activations / GIB == pytest.approx(1.26, rel=0.02)


def test_graphs_are_left_out_when_eager_and_stay_when_asleep() -> None:
    eager = footprint(vllm(eager=True), LLAMA_70B, "gpu")
    graphs = footprint(vllm(), LLAMA_70B, "gpu")
    assert eager.residue == CUDA_CONTEXT
    assert graphs.residue > eager.residue
    assert graphs.asleep == graphs.residue
    assert graphs.parked > LLAMA_70B.weight_bytes + PROCESSES


def test_an_engine_asleep_holds_what_was_reported() -> None:
    # vllm#32714: 1.1 GB is left of a healthy engine that sleeps.
    assert footprint(vllm(), LLAMA_8B, "gpu").asleep == pytest.approx(1.1e9, rel=0.05)


def test_vllm_on_a_cpu_gives_nothing_back() -> None:
    found = footprint(vllm(), LLAMA_8B, "cpu")
    assert found.asleep == found.awake
    assert found.parked == 0


def test_llamacpp_reserves_the_context_of_every_sequence() -> None:
    one, four = (footprint(llamacpp(concurrency=n), LLAMA_8B, "cpu") for n in (1, 4))
    assert (one.kv, four.kv) == (512 * MIB, 2048 * MIB)
    assert four.asleep < four.awake
    assert footprint(llamacpp(), LLAMA_8B, "gpu").residue == CUDA_CONTEXT


def test_a_scripted_model_can_pretend_to_be_as_large_as_a_checkpoint() -> None:
    model = ScriptedModel(engine="scripted", concurrency=3)
    assert footprint(model, replace(LLAMA_8B, weight_bytes=7), "gpu").awake == 7


@pytest.mark.parametrize(("count", "words"), [(0, "0 MiB"), (MIB, "1 MiB"), (3 * GIB, "3.0 GiB")])
def test_bytes_for_people(count: int, words: str) -> None:
    assert gib(count) == words
