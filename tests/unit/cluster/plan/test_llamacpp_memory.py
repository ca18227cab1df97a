"""How llama.cpp divides weights and caches. tests/e2e/test_llamacpp_memory.py reads its own log."""

from dataclasses import replace
from typing import Any

import pytest

from cluster.cards.card import Card
from cluster.plan.checkpoint import Attention, Checkpoint
from cluster.plan.checkpoint_facts import GgufBlock, GgufLayout
from cluster.plan.footprint import CUDA_CONTEXT, REPLICA, footprint
from cluster.plan.llamacpp_memory import Part, batch_tokens, divide, row_bytes
from cluster.plan.speed import as_engine_reads
from configs.schema import LlamaCppModel

LAYERS = (100, 200, 300, 400)
"""Bytes of the weights of each layer."""
CACHE = 256 * (64 + 32) * 2
"""Bytes of one layer's cache: one context of 256 tokens, 64 and 32 values in f16."""
TIED = Checkpoint(
    weight_bytes=1000 + 50 + 5000,
    layers=4,
    hidden=64,
    ffn=128,
    vocab=100,
    query_width=64,
    attention=(Attention(4, 96),),
    gguf=GgufLayout(5000, 50, tuple(GgufBlock(size, 64, 32) for size in LAYERS), tied_bytes=5000),
)


def model(**settings: Any) -> LlamaCppModel:
    usual = {"engine": "llamacpp", "weights": [{"path": "x.gguf"}]}
    return LlamaCppModel.model_validate(
        usual | {"context_tokens": 256, "concurrency": 1, "prefill_tokens": 32} | settings
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("f32", 256),
        ("f16", 128),
        ("bf16", 128),
        ("q8_0", 68),
        ("q5_1", 48),
        ("q5_0", 44),
        ("q4_1", 40),
        ("q4_0", 36),
        ("iq4_nl", 36),
    ],
)
def test_a_row_takes_its_blocks_with_their_scales(kind: str, expected: int) -> None:
    assert row_bytes(64, kind) == expected
    found = divide(model(kv_cache_type=kind), TIED, 0)
    assert found.ram.kv == 4 * 256 * (row_bytes(64, kind) + row_bytes(32, kind))


def test_keys_and_values_may_have_different_types() -> None:
    found = divide(model(kv_cache_type={"k": "q8_0", "v": "q4_0"}), TIED, 0)
    assert found.ram.kv == 4 * 256 * (68 + 18)


@pytest.mark.parametrize(
    ("gpu_layers", "gpu", "ram"),
    [
        # The output layer goes first, with a copy of the input embeddings, then layers from the last.
        ("auto", Part(1050 + 5000, 4 * CACHE), Part(5000, 0)),
        ("all", Part(1050 + 5000, 4 * CACHE), Part(5000, 0)),
        (99, Part(1050 + 5000, 4 * CACHE), Part(5000, 0)),
        (3, Part(50 + 5000 + 400 + 300, 2 * CACHE), Part(5000 + 300, 2 * CACHE)),
        (1, Part(50 + 5000, 0), Part(5000 + 1000, 4 * CACHE)),
        (0, Part(0, 0), Part(6050, 4 * CACHE)),
    ],
)
def test_layers_go_to_the_gpu_from_the_last_one_on(gpu_layers: Any, gpu: Part, ram: Part) -> None:
    settings = model(gpu_layers=gpu_layers)
    found = divide(settings, TIED, 1)
    assert (found.gpus, found.ram) == ((gpu,), ram)
    needs = footprint(settings, TIED, "gpu")
    assert (needs.weights, needs.kv, needs.residue) == (gpu.weights, gpu.kv, CUDA_CONTEXT)
    assert needs.processes == REPLICA + ram.weights + ram.kv
    on_cpu = footprint(settings, TIED, "cpu")
    assert (on_cpu.weights, on_cpu.kv) == (TIED.weight_bytes, 4 * CACHE)


def test_several_gpus_get_equal_runs_of_layers_and_count_as_the_largest() -> None:
    found = divide(model(), TIED, 2)  # five positions: three on the first GPU, two on the second
    assert found.gpus == (Part(600, 3 * CACHE), Part(400 + 50 + 5000, CACHE))
    needs = footprint(model(), TIED, "gpu", gpus=2)
    assert (needs.weights, needs.kv) == (2 * 600, 2 * 3 * CACHE)  # the first has more in all
    assert divide(model(gpu_layers=1), TIED, 2).gpus == (Part(5050, 0), Part(0, 0))


def test_layers_with_a_window_keep_the_window_and_a_step() -> None:
    blocks = (GgufBlock(1, 64, 64, window_tokens=300), GgufBlock(1, 64, 64))
    windowed = replace(TIED, gguf=GgufLayout(0, 0, blocks))
    for context, cells in ((256, 256), (4096, 512), (1000, 512)):
        full = -(-context // 256) * 256
        found = divide(model(context_tokens=context), windowed, 0)
        assert found.ram.kv == (min(cells, full) + full) * 256


def test_every_context_is_a_multiple_of_256_tokens() -> None:
    settings = model(context_tokens=1000, concurrency=3)
    assert divide(settings, TIED, 0).ram.kv == 4 * 3 * 1024 * 96 * 2


def test_guessed_tokens_need_room_in_a_step_and_states_to_go_back_to() -> None:
    ngram = model(speculation={"method": "ngram", "tokens": 8}, concurrency=8)
    assert (batch_tokens(model(concurrency=8)), batch_tokens(ngram)) == (32, 72)
    stateful = replace(TIED, gguf=GgufLayout(0, 0, (GgufBlock(1, 0, 0, state_bytes=1000),)))
    assert divide(model(), stateful, 0).ram.kv == 1000
    assert divide(model(speculation="ngram"), stateful, 0).ram.kv == 9 * 1000


def test_a_draft_model_counts_with_its_cache_in_f16() -> None:
    small = replace(TIED, gguf=GgufLayout(7, 3, (GgufBlock(10, 64, 32),)), weight_bytes=20)
    settings = model(
        kv_cache_type="q8_0", speculation={"method": "draft", "draft": [{"path": "d.gguf"}]}
    )
    alone = footprint(settings, TIED, "cpu")
    both = footprint(settings, replace(TIED, draft=small), "cpu")
    assert both.weights - alone.weights == 20
    assert both.kv - alone.kv == CACHE
    assert both.activations > alone.activations


def test_without_a_file_all_layers_are_taken_for_equal() -> None:
    shape = replace(TIED, gguf=None, attention=(Attention(3, 96), Attention(1, 96, 4096)))
    found = divide(model(), shape, 0)
    assert (found.ram.weights, found.ram.kv) == (TIED.weight_bytes, 4 * CACHE)


def test_layers_in_ram_and_several_gpus_do_not_add_up_their_speed() -> None:
    card = Card("g", 1 << 34, kind="gpu", bandwidth=1e12, flops=1e14, indices=(0, 1))
    fast = as_engine_reads(model(), TIED, card)
    assert fast.bandwidth == pytest.approx(5e11)
    assert fast.flops == 5e13
    slow = as_engine_reads(model(gpu_layers=3), TIED, card)
    share = 5750 / (5750 + 300)
    assert slow.bandwidth == pytest.approx(1 / (share / 5e11 + (1 - share) / 20e9))
