"""Every preset of the papers and of 2024 fits on the card that it is meant for, and becomes better with
more. `test_card_presets.py` has the recipes for single cards and laptops."""

from dataclasses import replace

import pytest

from cluster.cards.card import GIB
from cluster.cards.catalog import card_by_name
from cluster.plan.card_fill import host_limit
from cluster.plan.checkpoint import shapes
from cluster.plan.placement import Placement
from cluster.plan.planner import DoesNotFit, plan_recipe
from cluster.plan.task import read_checkpoints
from configs.load import load, presets
from configs.schema import VllmModel
from configs.weights import HubFolder
from tests.unit.cluster.plan.test_card_presets import GPUS

MEANT_FOR = {
    "slim_moa_a100": ("A100-80GB", 4),
    "small_moa_24gb": ("RTX-4090", 3),
    "together_moa": ("H200-141GB", 5),
    "moa_lite": ("H200-141GB", 5),
    "self_moa": ("A100-40GB", 1),
    "bf16_vs_quantized": ("A100-80GB", 4),
}


def hub_folders(preset: str) -> set[str]:
    models = [m for m in load(preset).models.values() if isinstance(m, VllmModel)]
    return {w.hub for model in models for w in model.weights if isinstance(w, HubFolder)}


def planned(preset: str, *cards: str) -> Placement:
    return plan_recipe(load(preset), [card_by_name(card, n) for n, card in enumerate(cards)])


@pytest.mark.parametrize(("preset", "card", "turns"), [(p, *c) for p, c in MEANT_FOR.items()])
def test_a_preset_fits_on_its_card(preset: str, card: str, turns: int) -> None:
    found = planned(preset, card)
    assert found.elsewhere == ()
    assert found.longest_turns == turns
    assert found.cards[0].used_bytes <= found.cards[0].usable_bytes


def test_all_presets_with_models_from_the_hub_are_planned_here() -> None:
    cards = {name for name in GPUS if hub_folders(name)}
    assert {name for name in presets() if hub_folders(name)} == set(MEANT_FOR) | cards


@pytest.mark.parametrize("preset", [*MEANT_FOR, *GPUS])
def test_contexts_are_what_the_checkpoints_were_made_for(preset: str) -> None:
    recipe = load(preset)
    for name, checkpoint in read_checkpoints(recipe).items():
        assert recipe.models[name].context_tokens <= checkpoint.most_tokens, name


def test_bundled_shapes_are_those_that_presets_name() -> None:
    used = {hub for preset in presets() for hub in hub_folders(preset)}
    assert set(shapes()) == used


def test_slim_moa_keeps_its_aggregator_awake_on_one_a100() -> None:
    (placed,) = planned("slim_moa_a100", "A100-80GB").cards
    resident, turns = placed.slots
    assert [m.model for m in resident.members] == ["gemma-2-9b-wpo"]
    assert [m.model for m in turns.members] == [
        "llama-3.1-70b",
        "qwen2.5-72b",
        "nemotron-70b",
        "qwen2-72b",
    ]


def test_slim_moa_on_a_gaming_card_is_refused_with_sums_and_advice() -> None:
    with pytest.raises(DoesNotFit) as caught:
        planned("slim_moa_a100", "RTX-4090")
    message = str(caught.value)
    assert "qwen2.5-72b: 48.5 GiB = weights 38.8 GiB + KV 7.6 GiB (24576 tokens)" in message
    assert "RTX-4090: 22.9 GiB of 23.4 GiB" in message
    assert "Fewer sequences or shorter contexts are not enough." in message
    assert message.endswith("It fits on one A100-80GB.")


def test_more_a100s_mean_fewer_turns_and_then_replicas() -> None:
    found = {n: planned("slim_moa_a100", *["A100-80GB"] * n) for n in (1, 2, 3, 4, 8)}
    assert {n: p.longest_turns for n, p in found.items()} == {1: 4, 2: 2, 3: 2, 4: 1, 8: 1}
    assert [found[n].turn_takers for n in (2, 3, 4)] == [4, 2, 0]
    replicas = {m: len(found[8].replicas(m)) for m in load("slim_moa_a100").models}
    assert replicas.pop("gemma-2-9b-wpo") >= 2
    assert set(replicas.values()) == {2}


def test_sampling_is_as_slim_moa_published_and_fits_gemmas_context() -> None:
    recipe = load("slim_moa_a100")
    sampling = recipe.aggregator.sampling
    assert (sampling.temperature, sampling.max_tokens) == (0.5, 4096)
    longest_references = 8192 - sampling.answer_tokens
    assert recipe.models[recipe.aggregator.model].context_tokens == 8192
    assert longest_references > 3003  # the 99th percentile of three proposals and their question


@pytest.mark.parametrize(
    ("preset", "layers", "tokens"), [("together_moa", 3, 2048), ("moa_lite", 2, 512)]
)
def test_moa_has_the_papers_layers(preset: str, layers: int, tokens: int) -> None:
    recipe = load(preset)
    assert [len(layer.proposers) for layer in recipe.layers] == [6] * layers
    found = [p.sampling for layer in recipe.layers for p in layer.proposers]
    assert {(s.temperature, s.max_tokens) for s in found} == {(0.7, tokens)}


def test_the_ablation_has_each_proposer_twice() -> None:
    names = [name for name in load("bf16_vs_quantized").models if name.endswith(("-bf16", "-awq"))]
    assert {n.removesuffix("-bf16") for n in names if n.endswith("-bf16")} == {
        n.removesuffix("-awq") for n in names if n.endswith("-awq")
    }


def test_four_70b_models_take_turns_on_one_card_of_a_machine_with_64_gib_of_ram() -> None:
    card = replace(card_by_name("A100-80GB"), host_bytes=64 * GIB)
    found = plan_recipe(load("slim_moa_a100"), [card])
    assert found.longest_turns == 4
    assert {r.model for r in found.stoppers} >= {"llama-3.1-70b", "qwen2.5-72b", "nemotron-70b"}
    assert found.replicas("gemma-2-9b-wpo")[0] not in found.stoppers  # it never leaves the card
    assert all(80 < replica.start_s < 120 for replica in found.stoppers)
    assert dict(found.host_bytes)[""] <= host_limit(load("slim_moa_a100"), card)
