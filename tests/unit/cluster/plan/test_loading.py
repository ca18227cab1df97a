"""What vLLM takes of a GPU while it loads weights: PyTorch's pool, and what it means for a slot."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.cards.card import GIB, MIB
from cluster.plan.card_fill import ReplicaToPlace, slot_bytes
from cluster.plan.checkpoint import Attention, Checkpoint, from_shapes
from cluster.plan.footprint import CUDA_CONTEXT, footprint
from cluster.plan.loading import loading_bytes
from cluster.plan.pinned import segment_bytes
from cluster.plan.tensors import held_tensors
from cluster.plan.torch_pool import TorchPool
from configs.schema import VllmModel

LLAMA_70B = "hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4"


def checkpoint(hub: str) -> Checkpoint:
    found = from_shapes(hub)
    assert found is not None
    return found


def vllm(**more: Any) -> VllmModel:
    return VllmModel.model_validate({"engine": "vllm", "weights": [{"hub": "a/b"}]} | more)


def test_a_pool_keeps_segments_and_gives_them_to_tensors_of_that_size() -> None:
    pool = TorchPool()
    first = pool.take(100 * MIB)
    pool.give(first)
    assert pool.take(90 * MIB) is first  # less than 20 MiB smaller
    assert pool.total == 100 * MIB
    pool.give(first)
    pool.take(80 * MIB)  # 20 MiB smaller: it gets a segment of its own
    assert pool.total == 180 * MIB


def test_tensors_of_middle_size_share_a_segment_until_all_of_it_is_free() -> None:
    pool = TorchPool()
    blocks = [pool.take(5 * MIB) for _ in range(4)]
    assert pool.total == 20 * MIB
    pool.give(blocks[1])
    pool.give(blocks[2])
    assert pool.take(9 * MIB) is not None  # in the two joined gaps
    assert pool.total == 20 * MIB
    whole = TorchPool()
    whole.give(whole.take(5 * MIB))
    whole.take(5 * MIB)  # a block of 20 MiB is too large to be split: vLLM's max_split_size
    assert whole.total == 40 * MIB


def test_small_tensors_are_counted_by_their_sum() -> None:
    pool = TorchPool()
    pool.give(pool.take(1))
    pool.take(MIB)
    assert pool.total == 512 + MIB


@pytest.mark.parametrize(
    ("hub", "marlin", "machete"),
    [  # the pool in GiB as the review of this project found it with a simulation of its own
        (LLAMA_70B, 43.6, 44.9),
        ("Qwen/Qwen2.5-72B-Instruct-AWQ", 45.5, 46.9),
    ],
)
def test_loading_takes_more_than_the_weights(hub: str, marlin: float, machete: float) -> None:
    for capability, pool in (("8.0", marlin), ("9.0", machete)):
        found = footprint(vllm(), checkpoint(hub), "gpu", capability=capability)
        assert pool <= (found.loading - CUDA_CONTEXT) / GIB <= 1.015 * pool


@settings(max_examples=80, deadline=None)
@given(
    layers=st.integers(1, 40),
    hidden=st.integers(24, 64).map(lambda n: 128 * n),
    ffn=st.integers(24, 240).map(lambda n: 128 * n),
    keys=st.integers(1, 16).map(lambda n: 256 * n),
    capability=st.sampled_from(["8.0", "9.0", None]),
)
def test_a_matrix_is_held_unpacked_twice_beside_all_weights(
    layers: int, hidden: int, ffn: int, keys: int, capability: str | None
) -> None:
    linear = layers * hidden * (2 * hidden + keys + 3 * ffn)
    what = Checkpoint(
        weight_bytes=linear // 2 + linear // 64 + linear // 256 + 4 * 32000 * hidden,
        lookup_bytes=2 * 32000 * hidden,
        layers=layers,
        hidden=hidden,
        ffn=ffn,
        vocab=32000,
        query_width=hidden,
        attention=(Attention(layers, keys),),
        quantization="awq",
    )
    found = footprint(vllm(), what, "gpu", capability=capability)
    largest = hidden * max(2 * ffn, hidden + keys)
    assert found.loading >= what.weight_bytes + 8 * largest + CUDA_CONTEXT
    two = footprint(vllm(), what, "gpu", 2, capability)
    assert two.loading >= what.weight_bytes + 8 * largest + 2 * CUDA_CONTEXT  # each repacks its half


def test_a_slot_holds_a_start_that_takes_more_than_the_engine_awake() -> None:
    # The review: a 70B with kv_tokens 8192 is 41.7 GiB awake, and needs 44.2 to load.
    needs = footprint(vllm(kv_tokens=8192, concurrency=24), checkpoint(LLAMA_70B), "gpu")
    assert needs.awake < 43 * GIB < needs.loading < 47 * GIB
    member = ReplicaToPlace("a", 0, 0, needs, 1.0, "gpu")
    assert slot_bytes([member], keeps_in_ram=False) == needs.loading == needs.peak
    assert slot_bytes([member, member], keeps_in_ram=False) == needs.loading + needs.residue


def test_weights_of_16_bits_load_as_they_are() -> None:
    qwen = checkpoint("Qwen/Qwen2.5-7B-Instruct")
    held = segment_bytes(held_tensors(qwen))
    assert loading_bytes(qwen) == held
    layer = 3 * 3584 * 18944 * 2
    assert loading_bytes(qwen, quantized_at_load=True) > held + 2 * layer


def test_unknown_methods_are_taken_for_the_one_that_takes_most() -> None:
    llama = checkpoint(LLAMA_70B)
    names = (None, "awq", "gptq")
    unknown, awq, gptq = (loading_bytes(replace(llama, quantization=name)) for name in names)
    assert unknown == awq > gptq > llama.weight_bytes


def test_experts_are_not_unpacked() -> None:
    mixtral = checkpoint("MaziyarPanahi/Mixtral-8x22B-Instruct-v0.1-AWQ")
    held = segment_bytes(held_tensors(mixtral))
    experts = 8 * 3 * 6144 * 16384 // 2
    assert held + experts < loading_bytes(mixtral) < held + 3 * experts


def test_a_model_on_a_cpu_loads_into_what_it_uses() -> None:
    assert footprint(vllm(), checkpoint(LLAMA_70B), "cpu").loading == 0
