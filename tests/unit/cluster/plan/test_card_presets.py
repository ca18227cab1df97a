"""The recipes for cards and laptops: each is planned awake on all cards of its kind."""

import re
from importlib import resources
from typing import NamedTuple

import pytest

from cluster.cards.card import CPU_BANDWIDTH, CPU_FLOPS_PER_CORE, GIB, Card
from cluster.cards.catalog import card_by_name
from cluster.plan.placement import Placement
from cluster.plan.planner import DoesNotFit, plan
from cluster.plan.predict import predict
from cluster.plan.task import PlanningTask, planning_task
from configs.load import load, presets
from configs.schema import LlamaCppModel, Model, Sampling, VllmModel
from configs.weights import HubFile, HubFolder


class Meant(NamedTuple):
    """What a recipe is for, and what its comments promise."""

    cards: tuple[str, ...]
    """Names of cards, or GiB of RAM that a laptop of this kind shows to programs."""
    seconds: tuple[float, ...]
    """Predicted seconds of an answer on each of them, as the recipe's comment rounds them."""
    gigabytes: float
    """GB to download."""


def laptop(gib: float) -> Card:
    """A laptop with 8 cores, which shows somewhat less RAM than it was sold with."""
    flops = 8 * CPU_FLOPS_PER_CORE
    size = int(gib * GIB)
    return Card("cpu", size, cores=8, bandwidth=CPU_BANDWIDTH, flops=flops, host_bytes=size)


GPUS = {
    "moa_a100_80gb": Meant(("A100-80GB", "H100-80GB"), (18, 18), 64.3),
    "moa_h100_80gb": Meant(("H100-80GB",), (18,), 67.9),
    "moa_h200": Meant(("H200-141GB", "H200-NVL-141GB"), (18, 18), 119.4),
    "moa_48gb": Meant(("L40S", "A40", "RTX-A6000", "L40", "RTX-6000-Ada"), (20, 24, 22, 20, 18), 33.2),
    "moa_24gb": Meant(
        ("RTX-4090", "L4", "RTX-3090", "A10", "A10G", "RTX-A5000", "A30"),
        (12, 32, 13, 18, 18, 15, 13),
        17.9,
    ),
    "moa_16gb": Meant(
        ("RTX-4080", "RTX-4060-Ti-16GB", "RTX-5080", "RTX-5070-Ti", "RTX-4070-Ti-SUPER"),
        (18, 38, 14, 15, 19),
        12.7,
    ),
    "moa_12gb": Meant(("RTX-3060-12GB",), (16,), 7.7),
}
LAPTOPS = {
    "laptop_8gb": Meant(("7.6",), (240,), 4.6),
    "laptop_16gb": Meant(("15.4",), (250,), 9.8),
    "laptop_32gb": Meant(("31",), (280,), 19.1),
}
ALL = GPUS | LAPTOPS
PLACES = [(preset, card) for preset, meant in ALL.items() for card in meant.cards]
MAKERS = {
    "Apache-2.0": ("Qwen", "Ministral", "gpt-oss", "gemma-4"),
    "MIT": ("GLM",),
}
"""Licences of the families that the recipes name, by a part of the repository's name."""
NEVER_THINKS = (
    "Instruct-2507",
    "Ministral-3-3B-Instruct",
    "Ministral-3-8B-Instruct",
    "14B-Instruct-2512",
)
"""Parts of the names of checkpoints that do not think, whatever their template gets."""


def hub(model: Model) -> str:
    """The repository that a model's weights come from."""
    assert isinstance(model, LlamaCppModel | VllmModel)
    (source,) = model.weights
    assert isinstance(source, HubFile | HubFolder)
    return source.hub


def family(model: Model) -> str:
    """The maker of a model, by the word of its family."""
    families = {"Qwen": "Alibaba", "GLM": "Z.ai", "Ministral": "Mistral AI", "gemma": "Google"}
    families |= {"gpt-oss": "OpenAI"}
    (maker,) = (maker for word, maker in families.items() if word in hub(model).split("/")[1])
    return maker


def planned(preset: str, card: str) -> tuple[PlanningTask, Placement]:
    """The plan of a preset on a card, without any file of this machine."""
    found = laptop(float(card)) if preset in LAPTOPS else card_by_name(card)
    task = planning_task(load(preset), [found], lambda _name, _model: None)
    return task, plan(task)


def comment(preset: str) -> str:
    """The recipe's comment before its first key, as one line."""
    text = resources.files("configs").joinpath(f"{preset}.yaml").read_text("utf-8")
    lines = (line.lstrip("# ") for line in text.split("\nname:")[0].splitlines())
    return " ".join(lines)


def test_these_are_all_recipes_for_cards_and_laptops() -> None:
    named = {name for name in presets() if re.match(r"moa_.*\d|laptop_", name)}
    assert named == set(ALL)


@pytest.mark.parametrize(("preset", "card"), PLACES)
def test_all_models_stay_loaded_and_none_is_stopped(preset: str, card: str) -> None:
    task, placement = planned(preset, card)
    (placed,) = placement.cards
    assert placed.used_bytes <= placed.usable_bytes
    assert placement.elsewhere == ()
    assert placement.stoppers == ()
    if preset in LAPTOPS:  # models on a CPU take all cores in turns, and stay in RAM meanwhile
        assert [slot.keeps_loaded for slot in placed.slots] == [True]
    else:
        assert placement.longest_turns == 1
        assert len(placement.replicas()) == len(task.checkpoints)


@pytest.mark.parametrize(("preset", "card"), PLACES)
def test_the_predicted_seconds_are_those_of_the_comment(preset: str, card: str) -> None:
    meant = ALL[preset]
    found = predict(*planned(preset, card))
    assert found is not None
    seconds = meant.seconds[meant.cards.index(card)]
    assert found.answer_s == pytest.approx(seconds, rel=0.05)
    if meant.cards.index(card) < 2 and preset not in LAPTOPS:
        assert f" {seconds:.0f}" in comment(preset).split("Predicted, not measured: ")[1]
    if preset in LAPTOPS:
        assert f"about {seconds / 60:.0f} minutes an answer" in comment(preset)


@pytest.mark.parametrize("preset", ALL)
def test_the_download_is_as_large_as_the_comment_says(preset: str) -> None:
    task, _ = planned(preset, ALL[preset].cards[0])
    size = sum(each.weight_bytes for each in task.checkpoints.values())
    assert f"{size / 1e9:.1f}" == f"{ALL[preset].gigabytes:.1f}"
    assert f"{ALL[preset].gigabytes} GB to download" in comment(preset)


@pytest.mark.parametrize("preset", ALL)
def test_the_host_has_the_ram_that_the_comment_says(preset: str) -> None:
    _, placement = planned(preset, ALL[preset].cards[0])
    if preset in LAPTOPS:
        said = re.findall(r"these take ([\d.]+) GiB", comment(preset))[0]
        assert placement.cards[0].used_bytes / GIB == pytest.approx(float(said), rel=0.05)
        return
    said = re.findall(r"(\d+) GiB of host RAM", comment(preset).split("Needs: ")[1])[0]
    needed = sum(size for _, size in placement.host_bytes) / 0.8 / GIB
    assert needed <= int(said) <= needed + 5


@pytest.mark.parametrize("preset", ALL)
def test_makers_differ_and_proposers_are_of_two_or_more(preset: str) -> None:
    recipe = load(preset)
    makers = [family(model) for model in recipe.models.values()]
    assert len(set(makers)) == len(makers)
    assert len({family(recipe.models[each.model]) for each in recipe.proposers()}) >= 2


@pytest.mark.parametrize("preset", ALL)
def test_gemma_writes_wherever_it_fits(preset: str) -> None:
    recipe = load(preset)
    writer = "Alibaba" if preset == "laptop_8gb" else "Google"
    assert family(recipe.models[recipe.aggregator.model]) == writer


@pytest.mark.parametrize("preset", ALL)
def test_no_model_thinks_without_a_limit(preset: str) -> None:
    recipe = load(preset)
    calls = [(each.model, each.sampling) for each in recipe.proposers()]
    calls += [(model, recipe.aggregator.sampling) for model in recipe.aggregators]
    for name, sampling in calls:
        assert is_bounded(recipe.models[name], sampling), name


def is_bounded(model: Model, sampling: Sampling) -> bool:
    """Whether a model does not think, or thinks within a limit of its own."""
    assert isinstance(model, LlamaCppModel | VllmModel)
    if any(part in hub(model) for part in NEVER_THINKS):
        return True
    if model.template.get("enable_thinking") is False:
        return True
    return sampling.thinking_tokens is not None and sampling.thinking_tokens <= 512


@pytest.mark.parametrize("preset", ALL)
def test_every_licence_is_named(preset: str) -> None:
    said = comment(preset).split("Licences: ")[1]
    for model in load(preset).models.values():
        ((licence, word),) = [
            (name, word)
            for name, words in MAKERS.items()
            for word in words
            if word.casefold() in hub(model).split("/")[1].casefold()
        ]
        spoken = word.replace("-4", " 4")
        assert re.search(rf"{spoken}[^;]* {licence}", said, re.IGNORECASE), (preset, word, licence)


@pytest.mark.parametrize("preset", ALL)
def test_weights_for_ampere_have_4_bits(preset: str) -> None:
    task, _ = planned(preset, ALL[preset].cards[0])
    for name, checkpoint in task.checkpoints.items():
        is_fp8 = checkpoint.quantization == "fp8"
        assert not is_fp8 or preset in ("moa_h100_80gb", "moa_h200"), name


@pytest.mark.parametrize("preset", ALL)
def test_the_longest_prompt_leaves_room_for_a_conversation(preset: str) -> None:
    """The aggregator reads all proposals at their longest, and has 500 tokens for the conversation."""
    recipe = load(preset)
    proposals = sum(each.samples * each.sampling.answer_tokens for each in recipe.proposers())
    context = recipe.models[recipe.aggregator.model].context_tokens
    assert proposals + 150 + recipe.aggregator.sampling.answer_tokens + 500 <= context


@pytest.mark.parametrize("preset", ALL)
def test_deadlines_hold_twice_the_predicted_seconds(preset: str) -> None:
    recipe, meant = load(preset), ALL[preset]
    assert recipe.limits.deadline_s >= 2 * max(meant.seconds)


@pytest.mark.parametrize("preset", ALL)
def test_every_preset_says_in_one_line_what_it_is(preset: str) -> None:
    assert 40 < len(load(preset).description) <= 100


@pytest.mark.parametrize("preset", [name for name in GPUS if "xllamacpp" in comment(name)])
def test_the_cuda_build_has_the_version_that_is_installed(preset: str) -> None:
    from importlib.metadata import version

    assert f"xllamacpp=={version('xllamacpp')} " in comment(preset)


def test_gguf_files_are_pinned_to_a_revision_and_a_checksum() -> None:
    for preset in ALL:
        for name, model in load(preset).models.items():
            if isinstance(model, LlamaCppModel):
                (source,) = model.weights
                assert isinstance(source, HubFile)
                assert re.fullmatch("[0-9a-f]{40}", source.revision), (preset, name)
                assert source.sha256 is not None


@pytest.mark.parametrize(
    ("preset", "card"),
    [("moa_h200", "H100-80GB"), ("moa_48gb", "RTX-4080"), ("moa_a100_80gb", "A100-40GB")],
)
def test_what_the_comments_say_does_not_fit_is_refused_or_takes_turns(preset: str, card: str) -> None:
    try:
        _, placement = planned(preset, card)
    except DoesNotFit:
        return
    assert placement.longest_turns > 1
