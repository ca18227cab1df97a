"""What vLLM can run of a checkpoint's numbers on a GPU, and that plans say why not."""

import json
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.cards.card import Card
from cluster.cards.catalog import card_by_name
from cluster.plan.advice import find_advice
from cluster.plan.checkpoint import Checkpoint, from_config, from_folder
from cluster.plan.planner import CannotRun, plan
from cluster.plan.quantization import quantization_refusal, refusal, settings_refusal, settings_remark
from cluster.plan.runnable import recipe_obstacles
from cluster.plan.task import PlanningTask
from configs.schema import Recipe, VllmModel

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "vocab_size": 1000,
}
A100, T4, RTX_4090, H100, B200 = "8.0", "7.5", "8.9", "9.0", "10.0"
FP8_KV = {"num_bits": 8, "type": "float", "dynamic": False}


@pytest.mark.parametrize(
    ("method", "capability"),
    [
        (None, "7.0"),
        ("awq", T4),
        ("gptq", T4),
        ("fp8", A100),  # weights alone in 8 bits, by Marlin
        ("fp8", T4),
        ("modelopt", A100),
        ("modelopt_fp4", A100),  # NVFP4 before Blackwell, by Marlin
        ("modelopt_fp4", H100),
        ("modelopt_mixed", RTX_4090),
        ("gpt_oss_mxfp4", A100),
        ("compressed-tensors", A100),
        ("auto-round", A100),
        ("fp8", None),
        ("awq", "12.0"),
    ],
)
def test_what_vllm_runs_is_not_refused(method: str | None, capability: str | None) -> None:
    assert quantization_refusal(method, capability) is None


@pytest.mark.parametrize(
    ("method", "capability", "detail", "said"),
    [
        ("bitsandbytes", B200, "", "cannot run weights in 'bitsandbytes'; it can run .*awq"),
        ("hqq", None, "", "cannot run weights in 'hqq'"),
        ("some_new_method", A100, "", "cannot run weights in 'some_new_method'"),
        ("fbgemm_fp8", H100, "", "no longer starts weights in 'fbgemm_fp8'"),
        ("fp_quant", B200, "", "no longer starts"),
        ("awq", "7.0", "", "'awq' from compute capability 7.5 on, and this GPU has 7.0"),
        ("modelopt", T4, "FP8", r"'modelopt' \(FP8\) from compute capability 8.0 on"),
        ("gpt_oss_mxfp4", T4, "", "8.0 on, and this GPU has 7.5"),
        ("compressed-tensors", T4, "mxfp4-pack-quantized", "8.0 on"),
        ("compressed-tensors", H100, "marlin-24", "in the format 'marlin-24'"),
        ("compressed-tensors", H100, "sparse", "in the format 'sparse'"),
        ("awq", H100, "8 bits", "'awq' with 4 bits, and this checkpoint has 8"),
        ("gptq", H100, "3 bits", "'gptq' with 4 or 8 bits, and this checkpoint has 3"),
        ("gptq", H100, "4 bits, asymmetric", "only if it is symmetric"),
    ],
)
def test_what_vllm_cannot_run_is_refused_with_the_reason(
    method: str, capability: str | None, detail: str, said: str
) -> None:
    found = quantization_refusal(method, capability, detail)
    assert found is not None
    assert re.search(said, found)


@pytest.mark.parametrize(
    ("keys", "method", "detail", "kv"),
    [
        ({"quant_method": "AWQ", "bits": 4}, "awq", "4 bits", None),
        ({"quant_method": "gptq", "bits": 4, "sym": False}, "gptq", "4 bits, asymmetric", None),
        ({"quant_method": "fp8"}, "fp8", "", None),
        ({"quant_method": "mxfp4"}, "mxfp4", "", None),
        (
            {"quant_method": "compressed_tensors", "format": "pack-quantized"},
            "compressed-tensors",
            "pack-quantized",
            None,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "float-quantized",
                "kv_cache_scheme": FP8_KV,
            },
            "compressed-tensors",
            "float-quantized",
            "fp8",
        ),
        (
            {"quant_method": "compressed-tensors", "sparsity_config": {"targets": ["Linear"]}},
            "compressed-tensors",
            "sparse",
            None,
        ),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "modelopt", "FP8", None),
        (
            {"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_scheme": FP8_KV},
            "modelopt_fp4",
            "NVFP4",
            "fp8",
        ),
        (
            {"quant_method": "modelopt", "quant_algo": "MXFP8", "kv_cache_quant_algo": "FP8"},
            "modelopt_mxfp8",
            "MXFP8",
            "fp8",
        ),
        (
            {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "kv_cache_quant_algo": None},
            "modelopt_mixed",
            "MIXED_PRECISION",
            None,
        ),
        (
            {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}},
            "modelopt",
            "FP8",
            None,
        ),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", "", None),
    ],
)
def test_a_config_says_how_its_numbers_are_stored(
    keys: dict[str, Any], method: str, detail: str, kv: str | None
) -> None:
    found = from_config(LLAMA | {"quantization_config": keys}, 10_000, 0)
    assert (found.quantization, found.quantization_detail, found.kv_dtype) == (method, detail, kv)


def test_a_file_beside_config_json_says_it_where_config_json_does_not(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    header = json.dumps({"a": {"data_offsets": [0, 8]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    beside = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}}
    beside["quantization"]["kv_cache_quant_algo"] = "FP8"
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(beside))
    found = from_folder(tmp_path)
    assert (found.quantization, found.kv_dtype) == ("modelopt_fp4", "fp8")


def test_experts_in_mxfp4_are_padded() -> None:
    # 36 layers of 128 experts of 2,880: padded to 3,072 x 2,944, 56.7 GiB become 61.9 GiB.
    config = {
        "model_type": "gpt_oss",
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_hidden_layers": 36,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "vocab_size": 201_088,
        "quantization_config": {"quant_method": "mxfp4"},
    }
    found = from_config(config, 60 << 30, 0)
    stored = 36 * 128 * 3 * 2880 * 2880 * 4.25 / 8
    assert stored / 2**30 == pytest.approx(56.7, abs=0.1)
    assert (stored + found.padding_bytes) / 2**30 == pytest.approx(61.9, abs=0.1)
    assert found.quantization == "gpt_oss_mxfp4"


def test_sparse_latent_attention_is_refused_before_hopper() -> None:
    config = LLAMA | {"model_type": "glm_moe_dsa", "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    found = from_config(config, 10_000, 0)
    assert refusal(found, H100) is None
    said = refusal(found, A100)
    assert said is not None
    assert "sparse attention needs compute capability 9.0, and this GPU has 8.0" in said


def task(make_recipe: Callable[..., Recipe], checkpoint: Checkpoint, *cards: Card) -> PlanningTask:
    return PlanningTask(make_recipe("a", aggregator="a"), {"a": checkpoint}, cards)


def test_a_plan_says_why_the_card_cannot_run_the_numbers(
    make_recipe: Callable[..., Recipe], make_checkpoint: Callable[[float], Checkpoint]
) -> None:
    nf4 = replace(make_checkpoint(8), quantization="bitsandbytes")
    with pytest.raises(CannotRun, match=r"'a' cannot run on RTX-4090: .*'bitsandbytes'"):
        plan(task(make_recipe, nf4, card_by_name("RTX-4090")))
    plan(task(make_recipe, replace(nf4, quantization="awq"), card_by_name("RTX-4090")))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"quant_method": "bitsandbytes"}, "model 'a' cannot run on A100-80GB: .*'bitsandbytes'"),
        ({"quant_method": "fp8"}, None),
        ("fp8", "model 'a': cannot understand the model in .*quantization_config"),
    ],
)
def test_check_says_what_weights_that_are_here_cannot_do(
    tmp_path: Path, make_recipe: Callable[..., Recipe], keys: Any, said: str | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"quantization_config": keys}))
    header = json.dumps({"a": {"data_offsets": [0, 8]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    recipe = make_recipe("a", aggregator="a", cards={"names": ["A100-80GB"]})
    lines = recipe_obstacles(recipe, [], lambda _name, _model: tmp_path)
    assert len(lines) == (said is not None)
    assert said is None or re.search(said, lines[0])


def test_check_says_nothing_of_weights_that_are_not_here(make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe("a", aggregator="a", a={"weights": [{"hub": "some/where"}]})
    assert recipe_obstacles(recipe, [], lambda _name, _model: None) == []


def test_a_model_goes_to_a_card_that_can_run_its_numbers(
    make_recipe: Callable[..., Recipe], make_checkpoint: Callable[[float], Checkpoint]
) -> None:
    old = replace(card_by_name("A100-80GB"), name="old", capability="7.0")
    new = replace(card_by_name("A100-40GB", 1))
    found = plan(task(make_recipe, replace(make_checkpoint(8), quantization="fp8"), old, new))
    (replica,) = found.replicas("a")
    assert found.cards[replica.card].card.name == "A100-40GB"


def test_no_card_is_advised_that_cannot_run_the_numbers(
    make_recipe: Callable[..., Recipe], make_checkpoint: Callable[[float], Checkpoint]
) -> None:
    nf4 = replace(make_checkpoint(8), quantization="bitsandbytes")
    small = replace(card_by_name("RTX-4090"), total_bytes=4 << 30)
    assert [advice for advice in find_advice(task(make_recipe, nf4, small)) if advice.cards] == []


def _vllm(**settings: object) -> VllmModel:
    return VllmModel.model_validate({"engine": "vllm", "weights": [{"path": "x"}], **settings})


@pytest.mark.parametrize(
    ("settings", "capability", "words"),
    [
        ({}, "7.0", "vLLM 0.33 is built for compute capability 7.5 and later, and this GPU has 7.0"),
        ({}, "7.5", None),
        ({"dtype": "bfloat16"}, "7.5", "dtype bfloat16 needs compute capability 8.0"),
        ({"dtype": "bfloat16"}, "8.0", None),
        ({"kv_cache_dtype": "fp8"}, "7.5", "kv_cache_dtype fp8 needs compute capability 8.0"),
        ({"kv_cache_dtype": "fp8"}, "8.0", None),
        ({"kv_cache_dtype": "fp8"}, None, None),
    ],
)
def test_settings_that_a_card_cannot_run_are_refused(
    settings: dict[str, object], capability: str | None, words: str | None
) -> None:
    found = settings_refusal(_vllm(**settings), capability)
    assert found is None if words is None else words in str(found)


@pytest.mark.parametrize(
    ("capability", "told"), [("8.0", True), ("8.6", True), ("8.9", False), ("7.5", False)]
)
def test_a_cache_in_fp8_before_ada_needs_flashinfer(capability: str, told: bool) -> None:
    found = settings_remark(_vllm(kv_cache_dtype="fp8"), capability)
    assert ("only FlashInfer reads such a cache" in str(found)) is told
    assert settings_remark(_vllm(), capability) is None
