"""KV caches against vLLM's own figures, and what holds of them for any shape.

`vllm_kv_needs.json` has the least bytes of a KV cache with which vLLM starts, by its own planning code.
`python -m tests.e2e.vllm_planning --write` writes it anew; that needs vLLM (docs/vllm.md).
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.plan.checkpoint import Attention, Checkpoint, from_shapes
from cluster.plan.footprint import footprint
from cluster.plan.kv_cache import KERNEL_BLOCKS, KvNeeds, kv_pool_bytes
from configs.schema import VllmModel

NEEDS = json.loads(Path(__file__).with_name("vllm_kv_needs.json").read_text("utf-8"))
SHAPE = Checkpoint(10**9, 1, 4096, 14336, 128_256, 4096, ())


def shape_of(case: dict[str, Any]) -> Checkpoint:
    attention = tuple(Attention(*kind) for kind in case["attention"])
    states, state_bytes = case["state"]
    return replace(SHAPE, attention=attention, state_layers=states, state_bytes=states * state_bytes)


def needs_of(case: dict[str, Any]) -> KvNeeds:
    return KvNeeds(
        context_tokens=case["context"],
        kv_tokens=case["context"],
        sequences=1,
        in_flight_tokens=case["in_flight"],
        value_bytes=case["value_bytes"],
        block_tokens=case["block"],
    )


@pytest.mark.parametrize("case", NEEDS["cases"], ids=[case["name"] for case in NEEDS["cases"]])
def test_one_sequence_takes_what_vllm_says(case: dict[str, Any]) -> None:
    assert kv_pool_bytes(shape_of(case), needs_of(case)) == case["least_bytes"]


@st.composite
def shapes(draw: st.DrawFn) -> Checkpoint:
    kinds = draw(
        st.lists(
            st.builds(
                Attention,
                layers=st.integers(1, 90),
                kv_width=st.sampled_from([256, 512, 576, 1024, 1536, 2048, 4096, 16384]),
                window_tokens=st.sampled_from([0, 0, 128, 512, 1024, 4096, 8192]),
            ),
            min_size=1,
            max_size=3,
        )
    )
    states = draw(st.sampled_from([0, 0, 1, 7, 36, 48, 54]))
    return replace(
        SHAPE,
        attention=tuple(kinds),
        state_layers=states,
        state_bytes=states * draw(st.integers(1, 4 << 20)),
    )


@settings(max_examples=100, deadline=None)
@given(
    shape=shapes().map(lambda shape: replace(shape, state_layers=0, state_bytes=0)),
    context=st.integers(128, 200_000),
    in_flight=st.integers(32, 70_000),
    block=st.sampled_from([16, 32, 64]),
)
def test_smaller_blocks_never_take_more(
    shape: Checkpoint, context: int, in_flight: int, block: int
) -> None:
    needs = KvNeeds(context, context, 1, in_flight, 2, block)
    larger = replace(needs, block_tokens=2 * block)
    assert kv_pool_bytes(shape, needs) <= kv_pool_bytes(shape, larger)


@settings(max_examples=150, deadline=None)
@given(
    shape=shapes(),
    context=st.integers(128, 200_000),
    batch=st.integers(32, 20_000),
    concurrency=st.integers(1, 64),
    kv_tokens=st.none() | st.integers(128, 500_000),
    gpus=st.sampled_from([1, 2, 4, 8]),
    kind=st.sampled_from(["gpu", "cpu"]),
)
def test_a_planned_cache_holds_what_vllm_wants_for_one_context(
    shape: Checkpoint,
    context: int,
    batch: int,
    concurrency: int,
    kv_tokens: int | None,
    gpus: int,
    kind: Any,
) -> None:
    model = VllmModel.model_validate(
        {
            "engine": "vllm",
            "weights": [{"hub": "a/b"}],
            "context_tokens": context,
            "batch_tokens": batch,
            "concurrency": concurrency,
            "kv_tokens": kv_tokens,
        }
    )
    gpus = gpus if kind == "gpu" else 1
    step = max(batch, concurrency, context if kind == "cpu" else 0)
    in_flight = (2 if kind == "gpu" else 1) * step
    planned = footprint(model, shape, kind, gpus).kv
    for block in KERNEL_BLOCKS[: 3 if shape.state_bytes and kind == "gpu" else 4]:
        vllm = KvNeeds(context, context, 1, in_flight, 2, block)
        assert planned >= kv_pool_bytes(shape, vllm)
    more = model.model_copy(update={"concurrency": concurrency + 1})
    assert footprint(more, shape, kind, gpus).kv >= planned


def gemma() -> Checkpoint:
    found = from_shapes("wzhouad/gemma-2-9b-it-WPO-HB")
    assert found is not None
    return found


@pytest.mark.parametrize("settings", [{"kv_tokens": 8192, "concurrency": 24}, {"concurrency": 1}])
def test_one_context_of_gemma_counts_two_steps_in_flight(settings: dict[str, Any]) -> None:
    """vLLM: "2.63 GiB KV cache is needed, which is larger than the available (2.38 GiB)"."""
    model = VllmModel.model_validate(
        {"engine": "vllm", "weights": [{"hub": "a/b"}], "context_tokens": 8192} | settings
    )
    window = min(8192, 4095 + 2 * 2048)
    least = 21 * (8192 + window) * 2 * 8 * 256 * 2
    found = footprint(model, gemma(), "gpu").kv
    assert least <= found <= 1.05 * least


@pytest.mark.parametrize(("counts", "rows"), [((13, 12), 13 + 13), ((12, 24), 36), ((10, 14), 14 + 14)])
def test_groups_of_layers_are_filled_up_as_vllm_does(counts: tuple[int, int], rows: int) -> None:
    full, windows = counts
    shape = replace(SHAPE, attention=(Attention(full, 1024), Attention(windows, 1024, 4096)))
    one = KvNeeds(4096, 4096, 1, 4096, 2, 16)  # the window covers the whole context
    found = kv_pool_bytes(shape, one)
    assert found == pytest.approx(rows * 4096 * 1024 * 2, rel=0.02)


def test_every_sequence_has_its_own_states() -> None:
    hybrid = replace(SHAPE, attention=(Attention(16, 1024),), state_layers=48, state_bytes=48 * 3 << 20)
    one = KvNeeds(4096, 4096, 1, 4096, 2, 16)
    grown = kv_pool_bytes(hybrid, replace(one, sequences=9)) - kv_pool_bytes(hybrid, one)
    assert grown >= 8 * hybrid.state_bytes


@pytest.mark.parametrize(
    ("asked", "setting", "kind", "value_bytes"),
    [
        ("fp8", "auto", "gpu", 1),
        ("fp8_e4m3", "auto", "gpu", 1),
        ("fp8", "auto", "cpu", 2),
        (None, "auto", "gpu", 2),
        (None, "fp8", "gpu", 1),
        ("bfloat16", "auto", "gpu", 2),
    ],
)
def test_the_checkpoint_decides_the_number_type_of_its_cache(
    asked: str | None, setting: str, kind: Any, value_bytes: int
) -> None:
    shape = replace(SHAPE, attention=(Attention(32, 2048),), kv_dtype=asked)
    model = VllmModel.model_validate(
        {"engine": "vllm", "weights": [{"hub": "a/b"}], "kv_cache_dtype": setting, "concurrency": 1}
    )
    found = footprint(model, shape, kind).kv
    assert found == pytest.approx(32 * 2048 * 4096 * value_bytes, rel=0.05)


def test_latent_attention_is_copied_to_every_gpu() -> None:
    latent = replace(SHAPE, attention=(Attention(61, 576),), kv_heads=1, heads=128)
    model = VllmModel.model_validate({"engine": "vllm", "weights": [{"hub": "a/b"}]})
    assert footprint(model, latent, "gpu", 8).kv == 8 * footprint(model, latent, "gpu").kv
