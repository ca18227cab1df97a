"""Models with random weights in the shapes of real checkpoints, and how they are planned."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.real_cards import dummy_models
from benchmarks.real_cards.dummy_tensors import stored_bytes, tensors
from benchmarks.real_cards.gpu_check import CALLS
from benchmarks.real_cards.planned import UnknownModel, plan_mixture, plan_models, shape_of
from cluster.cards.card import GIB
from cluster.plan.checkpoint import from_folder, shapes
from configs.load import load
from configs.schema import VllmModel
from configs.weights import HubFolder
from tests.unit.benchmarks.real_cards.pretended import Pretended

PRESETS = [path.stem for path in sorted((Path(__file__).parents[4] / "configs").glob("*.yaml"))]
# Random weights are made for the families of the 2024 presets only: their shapes tell every tensor.
WRITABLE = {hub: shape for hub, shape in shapes().items() if "bytes_are" not in shape}
SOURCES = [
    f"{preset}/{name}"
    for preset in PRESETS
    for name, model in load(preset).models.items()
    if isinstance(model, VllmModel)
    and isinstance(model.weights[0], HubFolder)
    and model.weights[0].hub in WRITABLE
]


@pytest.mark.parametrize(("hub", "shape"), WRITABLE.items(), ids=WRITABLE)
def test_random_weights_have_the_bytes_of_the_real_checkpoint(
    hub: str, shape: dict[str, Any], tmp_path: Path
) -> None:
    assert sum(map(stored_bytes, tensors(shape["config"]))) == shape["weight_bytes"], hub
    dummy_models.write_shape(tmp_path, shape["config"], "bfloat16")
    file = tmp_path / "model.safetensors"
    assert file.stat().st_size > shape["weight_bytes"]  # else the file would count as cut
    assert file.stat().st_blocks * 512 < 4 << 20  # and yet it takes no disk
    found = from_folder(tmp_path)
    assert found.weight_bytes == shape["weight_bytes"]
    assert found.lookup_bytes == shape["lookup_bytes"]
    assert sum(found.tensor_bytes) == shape["weight_bytes"]


@pytest.mark.parametrize("source", SOURCES)
def test_every_model_of_a_preset_can_have_random_weights(source: str, tmp_path: Path) -> None:
    """Before, the models of moa_lite and together_moa ended in KeyError: 'mixtral'."""
    (planned,) = plan_models(Pretended(tmp_path).bench().machine, {"it": source})
    assert isinstance(planned.model, VllmModel)
    assert planned.model.load_format == "dummy"
    assert planned.needs.awake > planned.needs.weights > GIB


def test_a_family_without_an_architecture_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(dummy_models.UnknownShape, match="model_type 'mamba'; there are: llama, qwen2"):
        dummy_models.write_shape(tmp_path, {"model_type": "mamba"}, "bfloat16")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("llama-3.1-8b", "write PRESET/MODEL"),
        ("small_moa_24gb/llama-4", "has no model 'llama-4'; it has: llama-3.1-8b"),
        ("tiny_cpu/smollm2-135m", "runs on llamacpp, not on vLLM"),
        ("vllm_cpu/smollm2-135m", "no shape of"),
    ],
)
def test_a_model_that_cannot_be_measured_is_refused(source: str, said: str) -> None:
    with pytest.raises(UnknownModel, match=said):
        shape_of(source)


def test_the_mixture_of_the_third_call_takes_turns_with_room_for_all(tmp_path: Path) -> None:
    """Review D: on an H200 the preset's models are all resident, so no turn would be tested."""
    bench = Pretended(tmp_path).bench()
    mixture = plan_mixture(bench.machine, {f"m{n}": s for n, s in enumerate(CALLS["third"].models)})
    assert mixture.placement.longest_turns == 2
    assert mixture.recipe.aggregator.model == "m1"
    assert mixture.recipe.cards.host_memory_bytes is not None
    assert 0.7 * 128 * GIB < mixture.recipe.cards.host_memory_bytes < 128 * GIB
