"""The bundled shapes of GGUF files, held to what is published of them and to real headers."""

from math import prod
from typing import Any

import pytest

from actors.weights.files import cached
from actors.weights.lookup import weights_state
from cluster.cards.card import GIB, Card
from cluster.plan.checkpoint import UnknownCheckpoint, from_gguf
from cluster.plan.checkpoint_facts import Checkpoint
from cluster.plan.gguf_shapes import bundled_file_bytes, from_gguf_shapes, gguf_shapes
from cluster.plan.planner import plan_recipe
from configs.load import load, presets
from configs.schema import LlamaCppModel, Recipe
from configs.weights import HubFile, LocalFile, WheelFiles, WheelPart

QWEN = "3605803b982cb64aead44f6c1b2ae36e3acdb41d8e46c8a94c6533bc4c67e597"
HUB = "unsloth/Qwen3-4B-Instruct-2507-GGUF"
FILE = "Qwen3-4B-Instruct-2507-Q4_K_M.gguf"
REVISION = "a06e946bb6b655725eafa393f4a9745d460374c9"

PUBLISHED = {
    # By a part of the file's name: parameters in billions; bytes that a token leaves in the KV cache of
    # all layers that keep every token, in 16 bits; the same for layers with a window. The parameters
    # are those that others tell (llama.cpp prints 11,907,350,576 for Gemma 4 12B), or were worked out
    # by hand; that the bits of a weight come out as the format has them confirms both. The caches of
    # Qwen3-4B, Ministral-3-3B and Gemma 4 E2B are in public catalogues: 147,456, 106,496, 18,432 bytes.
    "Qwen3-4B": (4.02, 147_456, 0),
    "Ministral-3-3B": (3.43, 106_496, 0),
    "Ministral-3-8B": (8.49, 139_264, 0),
    "Qwen3.5-9B": (8.95, 32_768, 0),
    "gemma-4-12b": (11.91, 16_384, 327_680),
    "gemma-4-E4B": (7.52, 16_384, 40_960),
    "gemma-4-E2B": (4.65, 6_144, 12_288),
    "gemma-4-26B": (25.23, 20_480, 204_800),
    "qwen2.5-coder-1.5b": (1.54 + 0.23, 28_672, 0),  # the file has the table of tokens twice
    "qwen2.5-coder-0.5b": (0.49 + 0.14, 12_288, 0),
}


def shape(part: str) -> dict[str, Any]:
    (found,) = [each for each in gguf_shapes().values() if part in each["file"]]
    return found


def checkpoint(part: str) -> Checkpoint:
    (sha,) = [sha for sha, each in gguf_shapes().items() if part in each["file"]]
    found = from_gguf_shapes(LocalFile(path="x.gguf", sha256=sha))
    assert found is not None
    return found


@pytest.mark.parametrize(("part", "published"), PUBLISHED.items(), ids=PUBLISHED)
def test_parameters_and_caches_are_the_published_ones(
    part: str, published: tuple[float, int, int]
) -> None:
    billions, kept, windowed = published
    found = checkpoint(part)
    counted = sum(prod(dims) for _, dims, _ in shape(part)["tensors"])
    assert counted / 1e9 == pytest.approx(billions, rel=0.015)
    full = [kind for kind in found.attention if not kind.window_tokens]
    short = [kind for kind in found.attention if kind.window_tokens]
    assert sum(kind.layers * kind.token_bytes(2) for kind in full) == kept
    assert sum(kind.layers * kind.token_bytes(2) for kind in short) == windowed


@pytest.mark.parametrize("part", PUBLISHED)
def test_bytes_are_those_of_the_file_and_of_its_format(part: str) -> None:
    found, bundled = checkpoint(part), shape(part)
    header = bundled["file_bytes"] - found.weight_bytes  # 0 where the real header was not at hand
    assert 0 <= header < 8_000_000
    others = [each for each in bundled["tensors"] if each[0].startswith("layers")]
    bits = 8 * sum(size for *_, size in others) / sum(prod(dims) for _, dims, _ in others)
    # Q4_0 has 4.5 bits, and Q4_K_M has 4.8 to 4.9: a part of its tensors are Q6_K, or larger where
    # a model is narrow.
    most = 4.7 if "q4_0" in bundled["file"] else 5.6 if "0.5b" in bundled["file"] else 5
    assert 4.5 <= bits < most


def test_only_a_part_of_the_experts_computes_a_token() -> None:
    found = checkpoint("gemma-4-26B")
    assert (found.experts, found.experts_used) == (128, 8)
    assert found.active_parameters == pytest.approx(3.7e9, rel=0.05)
    assert found.read_bytes(1) < 0.25 * found.weight_bytes


@pytest.mark.parametrize("part", ["E4B", "E2B"])
def test_a_token_reads_one_row_of_the_tables_of_each_layer(part: str) -> None:
    found = checkpoint(part)
    assert 0.4 < found.lookup_bytes / found.weight_bytes < 0.6


@pytest.mark.weights
@pytest.mark.parametrize("name", ["smollm2-135m", "qwen2.5-coder-0.5b"])
def test_a_bundled_shape_gives_what_the_real_header_gives(name: str) -> None:
    model = load("tiny_cpu").models[name]
    assert isinstance(model, LlamaCppModel)
    file = cached(model.weights)
    if file is None:
        pytest.skip("its weights are not in the cache")
    real, bundled = from_gguf(file), from_gguf_shapes(model.weights[0])
    assert bundled is not None
    # How the bytes are divided between layers is not bundled.
    same = [field for field in Checkpoint.__slots__ if field not in ("tensor_bytes", "gguf")]
    assert {f: getattr(bundled, f) for f in same} == {f: getattr(real, f) for f in same}
    assert bundled_file_bytes(model.weights[0]) == file.stat().st_size


def test_every_gguf_file_of_a_preset_has_a_bundled_shape() -> None:
    for preset in presets():
        for name, model in load(preset).models.items():
            if isinstance(model, LlamaCppModel):
                found = [bundled_file_bytes(source) for source in model.weights]
                assert any(found), f"{preset}/{name}"


@pytest.mark.parametrize(
    ("source", "is_known"),
    [
        (HubFile(hub=HUB, file=FILE), True),
        (HubFile(hub=HUB, file=FILE, revision=REVISION), True),
        (HubFile(hub="someone/else", file="renamed.gguf", sha256=QWEN), True),
        (LocalFile(path="here.gguf", sha256=QWEN), True),
        (WheelFiles(wheels=(WheelPart(wheel="a==1", file="a.bin"),), sha256=QWEN), True),
        (HubFile(hub=HUB, file=FILE, revision="0" * 40), False),
        (HubFile(hub=HUB, file=FILE, sha256="0" * 64), False),
        (HubFile(hub=HUB, file="Qwen3-4B-Instruct-2507-Q8_0.gguf"), False),
        (LocalFile(path=FILE), False),
        (WheelFiles(wheels=(WheelPart(wheel="a==1", file="a.bin"),)), False),
    ],
    ids=lambda value: value.__class__.__name__ if not isinstance(value, bool) else str(value),
)
def test_a_file_is_known_by_its_checksum_or_by_its_name_on_the_hub(
    source: HubFile | LocalFile | WheelFiles, is_known: bool
) -> None:
    assert (from_gguf_shapes(source) is not None) is is_known
    assert (bundled_file_bytes(source) == 2_497_281_120) is is_known


def test_a_file_without_a_shape_still_has_to_be_fetched_before_a_plan() -> None:
    recipe = Recipe.model_validate(
        load("laptop_8gb").model_dump()
        | {
            "models": {
                name: {"engine": "llamacpp", "weights": [{"hub": "a/b", "file": "c.gguf"}]}
                for name in load("laptop_8gb").models
            }
        }
    )
    with pytest.raises(UnknownCheckpoint, match="before its file is here: run `slimmoa models RECIPE"):
        plan_recipe(recipe, [Card("cpu", 8 * GIB, cores=8)])


def test_the_bytes_to_fetch_are_known_before_they_are_here() -> None:
    model = LlamaCppModel(engine="llamacpp", weights=(HubFile(hub=HUB, file=FILE, revision=REVISION),))
    state = weights_state(model)
    assert state is not None
    assert (state.here, state.size_bytes, str(state)) == (False, 2_497_281_120, "2.5 GB to fetch")
