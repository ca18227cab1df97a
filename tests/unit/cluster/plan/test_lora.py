"""Facts about LoRA adapters, and the bytes that vLLM reserves for them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.cards.card import GIB, Card
from cluster.plan.checkpoint_facts import Attention, Checkpoint
from cluster.plan.footprint import footprint
from cluster.plan.lora import BadAdapter, joined, read_adapter, target_modules
from cluster.plan.planner import plan
from cluster.plan.runnable import recipe_obstacles
from cluster.plan.task import planning_task
from cluster.plan.vllm_extras import base_warning
from configs.errors import UserError
from configs.schema import Recipe, VllmModel
from configs.vllm import Adapter
from configs.weights import LocalFolder
from tests.unit.lora_folders import HIDDEN, adapter

BASE = Checkpoint(
    weight_bytes=1 << 20,
    layers=2,
    hidden=HIDDEN,
    ffn=128,
    vocab=100,
    query_width=HIDDEN,
    attention=(Attention(2, 32),),
    heads=4,
    kv_heads=1,
)


def model(**settings: Any) -> VllmModel:
    return VllmModel.model_validate(
        {"engine": "vllm", "weights": [{"hub": "maker/Llama-3.1-8B-Instruct"}]} | settings
    )


def test_room_is_reserved_for_all_adapters_at_the_largest_rank_and_for_what_is_merged(
    tmp_path: Path,
) -> None:
    first = read_adapter(adapter(tmp_path / "a", rank=4))
    second = read_adapter(adapter(tmp_path / "b", ["q_proj", "o_proj"], rank=12))
    lora = joined([first, second])
    assert (lora.slots, lora.rank) == (2, 16)  # vLLM has room for ranks of 8, 16, 32...
    assert target_modules(lora) == ["k_proj", "o_proj", "q_proj", "v_proj"]
    wide = 2 * (HIDDEN + HIDDEN) + 2 * (HIDDEN + 16)  # q and o, k and v; k as wide as v
    assert lora.reserved_bytes == 2 * 2 * 16 * 2 * wide  # layers, slots, rank, bytes
    assert lora.stored_bytes == first.stored_bytes + second.stored_bytes
    assert first.stored_bytes == 2 * 2 * 4 * (2 * HIDDEN + HIDDEN + 16)


def test_the_reserved_bytes_count_once_with_the_weights(tmp_path: Path) -> None:
    facts = [read_adapter(adapter(tmp_path / name)) for name in "ab"]
    lora = joined(facts)
    for kind in ("cpu", "gpu"):
        plain = footprint(model(), BASE, kind)
        with_lora = footprint(model(), replace(BASE, lora=lora), kind)
        assert with_lora.kv == plain.kv
        if kind == "cpu":
            more = lora.reserved_bytes * 3 // 2 + lora.stored_bytes  # room for one more stays empty
            assert with_lora.weights == plain.weights + more
        else:
            assert with_lora.weights >= plain.weights
            assert with_lora.parked == plain.parked + lora.stored_bytes
    assert sum(size * n for size, n in lora.tensors(2).items()) < lora.reserved_bytes


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "biases"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["embed_tokens"]}, "modules_to_save"),
        ({"peft_type": "IA3"}, "'IA3'"),
        ({"peft_type": 5}, "peft_type"),
        ({"init_lora_weights": "pissa"}, "'pissa'"),
        ({"layer_replication": [[0, 4]]}, "layer_replication"),
        ({"r": 0}, "rank"),
        ({"r": "8"}, "rank"),
        ({"r": True}, "rank"),
        ({"r": 1024}, "from 1 to 512"),
        ({"rank_pattern": {"q_proj": 600}}, "600"),
        ({"rank_pattern": [5]}, "rank"),
        ({"tensors": {"base_model.model.model.embed_tokens.lora_embedding_A": (8, 9)}}, "embeddings"),
        ({"tensors": {"base_model.model.lm_head.lora_A.weight": (8, 9)}}, "output layer"),
        ({"tensors": {"model.layers.0.mlp.experts.0.up_proj.lora_A.weight": (8, 9)}}, "experts"),
        ({"tensors": {"classifier.weight": (8, 9)}}, "'classifier.weight'"),
        ({"tensors": {"x.q.lora_A.weight": (8,)}}, "no matrix"),
        ({"tensors": {"x.q.lora_A.weight": (8, 9)}}, "pairs"),
        ({"modules": []}, "pairs"),
    ],
    ids=str,
)
def test_what_vllm_cannot_run_is_refused_by_reason(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(BadAdapter) as refused:
        read_adapter(adapter(tmp_path / "poet", **changes))
    assert why in str(refused.value)
    assert "poet" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("adapter_config.json", b"{"),
        ("adapter_config.json", b"[]"),
        ("adapter_config.json", b"\xff"),
        ("adapter_config.json", None),
        ("adapter_model.safetensors", b"123"),
        ("adapter_model.safetensors", None),
    ],
)
def test_broken_files_are_named(tmp_path: Path, file: str, content: bytes | None) -> None:
    folder = adapter(tmp_path / "poet")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(BadAdapter, match="poet"):
        read_adapter(folder)


@pytest.mark.parametrize(
    ("base", "warns"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", False),
        ("unsloth/llama-3.1-8b-instruct-bnb-4bit", False),
        ("mistralai/Mistral-7B-v0.3", True),
        (None, False),
        (7, False),
    ],
)
def test_an_adapter_of_another_model_is_warned_of(tmp_path: Path, base: Any, warns: bool) -> None:
    facts = read_adapter(adapter(tmp_path / "poet", base_model_name_or_path=base))
    warning = base_warning("poet", model(), facts)
    assert (warning is not None) == warns
    if warning:
        assert "Mistral-7B-v0.3" in warning
        assert "maker/Llama-3.1-8B-Instruct" in warning


def recipe(folders: dict[str, Path]) -> Recipe:
    adapters = {name: {"weights": [{"path": str(folder)}]} for name, folder in folders.items()}
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": {"base": model(adapters=adapters).model_dump(mode="json")},
            "layers": [{"proposers": [{"model": name} for name in folders]}],
            "aggregator": {"model": "base"},
        }
    )


def find(_name: str, settings: Any) -> Any:
    if not isinstance(settings, Adapter):
        return BASE
    (source,) = settings.weights
    assert isinstance(source, LocalFolder)
    return Path(source.path)


def test_a_mixture_of_adapters_is_planned_as_one_engine(tmp_path: Path) -> None:
    folders = {name: adapter(tmp_path / name) for name in ("poet", "coder")}
    placed = plan(planning_task(recipe(folders), [Card("cpu", 16 * GIB, cores=2)], find))
    (slot,) = placed.cards[0].slots
    (member,) = slot.members
    assert member.model == "base"
    lora = joined([read_adapter(folder) for folder in folders.values()])
    assert member.weights == BASE.weight_bytes + lora.on("cpu").reserved_bytes + lora.stored_bytes


def test_an_adapter_of_another_width_or_that_is_not_here_is_refused(tmp_path: Path) -> None:
    cards = [Card("cpu", 16 * GIB, cores=2)]
    with pytest.raises(UserError, match="takes 32 values, and a hidden state of the model has 64"):
        planning_task(recipe({"poet": adapter(tmp_path / "poet", inputs=32)}), cards, find)
    with pytest.raises(UserError, match="adapter 'poet' of model 'base'"):
        planning_task(
            recipe({"poet": tmp_path}), cards, lambda _, of: None if isinstance(of, Adapter) else BASE
        )


def test_target_modules_of_the_configuration_are_not_needed(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "poet")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"] = "all-linear"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    assert {module.suffix for module in read_adapter(folder).modules} == {"q_proj", "v_proj"}


def test_a_check_names_what_vllm_refuses_and_passes_over_what_is_not_here(tmp_path: Path) -> None:
    cards = [Card("cpu", 16 * GIB, cores=2)]
    bad = recipe({"poet": adapter(tmp_path / "poet", use_dora=True)})
    (line,) = recipe_obstacles(bad, cards, find)
    assert line == "vLLM cannot run the adapter 'poet': it is a DoRA adapter"
    absent = recipe({"poet": tmp_path / "nowhere"})

    def find_base(_name: str, of: Any) -> Checkpoint | None:
        return None if isinstance(of, Adapter) else BASE

    assert recipe_obstacles(absent, cards, find_base) == []
