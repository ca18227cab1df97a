"""The input of a plan: which cards it is for, and which kind of card a model goes to."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from cluster.cards.card import GIB, Card
from cluster.cards.catalog import UnknownCard, card_by_name
from cluster.plan.checkpoint import Checkpoint, scripted_checkpoint
from cluster.plan.task import PlanningTask, choose_cards, read_checkpoints
from configs.load import load
from configs.schema import Model, Recipe
from configs.vllm import Adapter

MakeRecipe = Callable[..., Recipe]
CPU = Card(name="cpu", total_bytes=16 * GIB, cores=8, node="here")
GPU = Card(name="gpu", total_bytes=24 * GIB, kind="gpu", node="here")


def test_the_cards_that_were_found_are_planned_for_unless_the_recipe_names_others(
    make_recipe: MakeRecipe,
) -> None:
    assert choose_cards(make_recipe("a", aggregator="a"), [CPU, GPU]) == [CPU, GPU]
    named = make_recipe("a", aggregator="a", cards={"names": ["L4", "A100-40GB"]})
    assert choose_cards(named, [CPU, GPU]) == [
        replace(card_by_name("L4", 0), node="here"),
        replace(card_by_name("A100-40GB", 1), node="here"),
    ]
    assert [card.node for card in choose_cards(named, [])] == ["", ""]


def test_a_recipe_that_names_an_unknown_card_is_refused(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe("a", aggregator="a", cards={"names": ["A1000"]})
    with pytest.raises(UnknownCard, match="A1000"):
        choose_cards(recipe, [CPU])


@pytest.mark.parametrize(
    ("engine", "cards", "kind"),
    [
        ("vllm", [CPU, GPU], "gpu"),
        ("vllm", [CPU], "cpu"),
        ("llamacpp", [CPU, GPU], "cpu"),
        ("llamacpp", [GPU], "gpu"),
    ],
)
def test_only_llamacpp_prefers_a_cpu(
    engine: str, cards: list[Card], kind: str, make_recipe: MakeRecipe
) -> None:
    recipe = make_recipe("a", aggregator="a", engine=engine)
    assert PlanningTask(recipe, {}, cards).kind("a") == kind


@pytest.mark.parametrize(("layers", "kind"), [("all", "gpu"), (12, "gpu"), (0, "cpu"), ("auto", "cpu")])
def test_llamacpp_goes_to_a_gpu_if_the_recipe_wants_layers_there(
    layers: str | int, kind: str, make_recipe: MakeRecipe
) -> None:
    settings = {"engine": "llamacpp", "weights": [{"path": "x.gguf"}], "gpu_layers": layers}
    recipe = make_recipe("a", aggregator="a", a=settings)
    assert PlanningTask(recipe, {}, [CPU, GPU]).kind("a") == kind


def test_a_draft_model_is_read_with_its_model(make_recipe: MakeRecipe) -> None:
    def find(name: str, model: Model | Adapter) -> Checkpoint:
        asked.append((name, model.model_dump()["weights"][0]["path"]))
        return scripted_checkpoint(len(asked))

    asked: list[tuple[str, str]] = []
    settings = {
        "engine": "llamacpp",
        "weights": [{"path": "x.gguf"}],
        "speculation": {"method": "draft", "draft": [{"path": "d.gguf"}]},
    }
    found = read_checkpoints(make_recipe("a", aggregator="a", a=settings), find)
    assert asked == [("a", "x.gguf"), ("a (draft)", "d.gguf")]
    assert found["a"].draft == scripted_checkpoint(2)


def test_scripted_models_go_to_a_gpu_if_there_is_one() -> None:
    recipe = load("scripted")
    assert PlanningTask(recipe, {}, [CPU, GPU]).kind("steady") == "gpu"
