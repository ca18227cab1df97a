"""Host RAM of sleeping engines: PyTorch's rounding, by hand and for random sizes."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.cards.card import GIB, MIB
from cluster.plan.checkpoint import Checkpoint, from_config, from_shapes
from cluster.plan.footprint import PROCESSES, footprint
from cluster.plan.pinned import pinned_bytes, segments, to_power_of_two
from cluster.plan.tensors import held_tensors
from configs.schema import VllmModel

MODEL = VllmModel.model_validate({"engine": "vllm", "weights": [{"hub": "a/b"}]})


def checkpoint(hub: str) -> Checkpoint:
    found = from_shapes(hub)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({40 * MIB: 80}, 80 * 64 * MIB),  # queries, keys and values of Llama 70B
        ({224 * MIB: 80}, 80 * 256 * MIB),  # gate and up
        ({256 * MIB: 1}, 256 * MIB),  # a power of two stays what it is
        ({256 * MIB + 1: 1}, 512 * MIB),  # one byte more, and the next power counts
        ({2376 * MIB: 2}, 2 * 4096 * MIB),  # a table of 152,064 tokens
        ({4 * MIB: 5}, 32 * MIB),  # five share a segment of 20 MiB
        ({7 * MIB: 4}, 2 * 32 * MIB),  # of these two have room in one
        ({512: 9}, 2 * MIB),
        ({1: 4096}, 2 * MIB),
        ({1: 4097}, 4 * MIB),
        ({}, 0),
    ],
)
def test_segments_are_rounded_up_to_a_power_of_two(tensors: dict[int, int], expected: int) -> None:
    assert pinned_bytes(Counter(tensors)) == expected


@given(st.dictionaries(st.integers(1, 3 * GIB), st.integers(1, 50), max_size=12))
def test_pinned_ram_holds_all_bytes_and_is_made_of_powers_of_two(tensors: dict[int, int]) -> None:
    found = segments(Counter(tensors))
    total = sum(size * count for size, count in tensors.items())
    assert sum(size * count for size, count in found.items()) >= total
    assert pinned_bytes(Counter(tensors)) == sum(to_power_of_two(n) * c for n, c in found.items())
    assert all(n % MIB == 0 for n in found)


# Sums of the review of this project, made with the same rules by another program.
@pytest.mark.parametrize(
    ("hub", "gib"),
    [
        ("hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4", 43.41),
        ("Qwen/Qwen2.5-72B-Instruct-AWQ", 47.51),
        ("Qwen/Qwen1.5-72B-Chat-AWQ", 52.47),
        ("Qwen/Qwen1.5-110B-Chat-AWQ", 78.38),
        ("MaziyarPanahi/Mixtral-8x22B-Instruct-v0.1-AWQ", 92.09),
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", 10.16),
        ("Qwen/Qwen2.5-7B-Instruct", 26.75),
        ("hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4", 6.07),
    ],
)
def test_pinned_ram_of_public_checkpoints(hub: str, gib: float) -> None:
    found = pinned_bytes(held_tensors(checkpoint(hub)))
    assert found / GIB == pytest.approx(gib, rel=0.01)


def stored(what: Checkpoint, experts: int = 1) -> tuple[int, ...]:
    """The tensors of an AWQ checkpoint as its files have them, none of them merged."""
    hidden, query, ffn = what.hidden, what.query_width, what.ffn
    keys = hidden * what.attention[0].kv_width // 2
    layer = [hidden * query, keys, keys, hidden * query] + [hidden * ffn] * 3 * experts
    sizes = [size for weights in layer for size in (weights // 2, weights // 64, weights // 256)]
    table = 2 * what.vocab * hidden
    return (*(sizes * what.layers), *[2 * hidden] * (2 * what.layers + 1), table, table)


@pytest.mark.parametrize(
    "hub",
    [
        "hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4",
        "Qwen/Qwen1.5-72B-Chat-AWQ",
        "MaziyarPanahi/Mixtral-8x22B-Instruct-v0.1-AWQ",
    ],
)
def test_the_headers_of_files_give_what_the_bundled_shape_gives(hub: str) -> None:
    shape = checkpoint(hub)
    read = replace(shape, tensor_bytes=stored(shape, shape.experts))
    for wide in (False, True):
        by_shape = pinned_bytes(held_tensors(shape, wide))
        assert pinned_bytes(held_tensors(read, wide)) == pytest.approx(by_shape, rel=0.01)


def test_merged_and_stacked_matrices_are_one_tensor_each() -> None:
    shape = checkpoint("MaziyarPanahi/Mixtral-8x22B-Instruct-v0.1-AWQ")
    held = held_tensors(replace(shape, tensor_bytes=stored(shape, 8)))
    assert held[8 * 2 * 6144 * 16384 // 2] == 56  # gate and up of eight experts
    # Queries, keys and values; and the scales of gate and up, which are as large.
    assert held[6144 * (6144 + 2048) // 2] == held[8 * 2 * 6144 * 16384 // 64] == 2 * 56
    assert held[6144 * 16384 // 2] == 0  # no expert alone


def test_tensors_that_no_rule_knows_are_held_as_they_are_stored() -> None:
    shape = replace(checkpoint("Qwen/Qwen2.5-7B-Instruct"), tensor_bytes=(100 * MIB, 3, 3))
    assert held_tensors(shape) == {100 * MIB: 1, 3: 2}


def test_an_engine_asleep_takes_pinned_ram_and_its_processes() -> None:
    llama = checkpoint("hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4")
    found = footprint(MODEL, llama, "gpu", capability="8.0")
    assert found.parked - found.processes == pinned_bytes(held_tensors(llama))
    assert found.processes == PROCESSES
    four = footprint(MODEL, llama, "gpu", gpus=4, capability="8.0")
    assert four.processes == 4 * PROCESSES  # a process for each GPU


def test_padded_experts_are_pinned_padded() -> None:
    # gpt-oss-120b: 2880 x 2880 becomes 3072 x 2944; the review has 56.7 and 61.9 GiB.
    plain = Checkpoint(
        weight_bytes=64 * GIB,
        layers=36,
        hidden=2880,
        ffn=2880,
        vocab=201_088,
        query_width=4096,
        attention=checkpoint("Qwen/Qwen2.5-7B-Instruct").attention,
        lookup_bytes=2 * 201_088 * 2880,
        experts=128,
        quantization="mxfp4",
        tensor_bytes=(128 * 5760 * 1440,) * 36 + (128 * 2880 * 1440,) * 36,
    )
    padded = replace(plain, padding_bytes=5 * GIB)
    grown = sum(n * c for n, c in held_tensors(padded).items())
    assert grown - sum(plain.tensor_bytes) == pytest.approx(5 * GIB, rel=0.001)
    more = footprint(MODEL, padded, "gpu").weights - footprint(MODEL, plain, "gpu").weights
    assert more == pytest.approx(5 * GIB, rel=0.02)  # segments are rounded


REAL = json.loads(Path(__file__).with_name("real_configs.json").read_text("utf-8"))


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("gpus", [1, 8])
def test_any_real_checkpoint_has_bytes_on_the_card_and_in_ram(name: str, gpus: int) -> None:
    shape = from_config(REAL[name]["config"], 60 * GIB, 0)
    folder = replace(shape, tensor_bytes=(7 * MIB,) * 100 + ((60 * GIB - 700 * MIB) // 600,) * 600)
    for what in (shape, folder):
        found = footprint(MODEL, what, "gpu", gpus, "9.0")
        stored = what.weight_bytes + what.padding_bytes
        assert 0.97 * stored <= found.weights <= 1.2 * stored
        assert found.weights <= found.loading
        assert found.weights <= found.parked - found.processes <= 2.7 * stored
