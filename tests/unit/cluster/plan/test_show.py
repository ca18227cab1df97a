"""A plan as a table, map, picture and JSON: every figure that is shown is the plan's."""

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from cluster.cards.card import GIB
from cluster.cards.catalog import card_by_name
from cluster.plan import show
from cluster.plan.footprint import gib
from cluster.plan.placement import Placement
from cluster.plan.planner import plan, plan_recipe
from cluster.plan.predict import Prediction, predict
from cluster.plan.task import planning_task
from configs.load import load

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def planned() -> tuple[Placement, Prediction | None]:
    cards = [card_by_name("A100-80GB"), card_by_name("A100-80GB", 1)]
    task = planning_task(load("slim_moa_a100"), cards)
    placement = plan(task)
    return placement, predict(task, placement)


def test_parts_add_up_to_what_the_slot_may_use(planned: tuple[Placement, Prediction | None]) -> None:
    for placed in planned[0].cards:
        for slot in placed.slots:
            sums = [sum(count for _, count in show.parts(m, slot)) for m in slot.members]
            assert max(sums) == slot.total_bytes
            for member, total in zip(slot.members, sums, strict=True):
                left = sum(other.residue for other in slot.members if other is not member)
                assert total == member.awake + left


def test_the_table_has_a_row_for_every_replica(planned: tuple[Placement, Prediction | None]) -> None:
    console = Console(width=160, file=StringIO())
    with console.capture() as shown:
        console.print(show.table(*planned))
    lines = shown.get().splitlines()
    (gemma,) = [line for line in lines if "gemma-2-9b-wpo" in line]
    member = planned[0].replicas("gemma-2-9b-wpo")[0]
    figures = [member.weights, member.kv, member.activations + member.residue]
    settings = f"0.3333 {member.utilization:.4f} 0.0 s 71 / 554"
    assert " ".join(gemma.split()) == (
        f"0 A100-80GB gemma-2-9b-wpo always {' '.join(map(gib, figures))} {settings}"
    )
    assert sum("1 of 2 in turns" in line for line in lines) == 4


def test_a_model_that_is_stopped_between_its_turns_is_named_with_the_seconds_of_a_start() -> None:
    card = replace(card_by_name("A100-80GB"), host_bytes=256 * GIB)
    task = planning_task(load("slim_moa_a100"), [card])
    placement = plan(task)
    prediction = predict(task, placement)
    (stopped,) = placement.stoppers
    console = Console(width=160, file=StringIO())
    with console.capture() as shown:
        console.print(show.table(placement, prediction))
    assert "wake or start" in shown.get()
    (row,) = [line for line in shown.get().splitlines() if "else stopped" in line]
    assert f" {stopped.model} " in row
    assert f" {stopped.start_s:.1f} s " in row
    line = (
        f"{stopped.model} is stopped between its turns, because there is too little RAM; "
        f"a start takes about {stopped.start_s:.0f} s (predicted)"
    )
    assert show.summary(placement, prediction).splitlines()[0] == line
    assert f"{gib(stopped.awake)}, in turns, else stopped" in show.memory_map(placement).plain
    members = show.to_json(placement)["cards"][0]["slots"][1]["members"]
    assert [member["stops"] for member in members].count(True) == 1


def test_the_summary_calls_a_prediction_a_prediction(
    planned: tuple[Placement, Prediction | None],
) -> None:
    words = show.summary(*planned)
    assert "host RAM on the host for engines and sleeping models: 206.8 GiB" in words
    assert "predicted, not measured: an answer in about 41 s, AlpacaEval's 805 prompts" in words
    assert "4 turns" in words


def test_the_map_is_drawn_to_scale(planned: tuple[Placement, Prediction | None]) -> None:
    lines = show.memory_map(planned[0]).plain.splitlines()
    first = planned[0].cards[0]
    free = gib(first.usable_bytes - first.used_bytes)
    assert lines[0] == f"0 A100-80GB: {gib(first.used_bytes)} planned, {free} free"
    (gemma,) = [line for line in lines if "gemma" in line]
    assert gemma.count("█") == round(17.2 / 79.1 * show.MAP_COLUMNS)
    (llama,) = [line for line in lines if "llama" in line]
    before = first.slots[0].total_bytes / first.card.total_bytes
    assert len(llama) - len(llama.lstrip()) == round(before * show.MAP_COLUMNS)
    assert llama.endswith(f"llama-3.1-70b {gib(first.slots[1].members[0].awake)}, in turns")


def test_the_picture_shows_the_map_line_by_line(planned: tuple[Placement, Prediction | None]) -> None:
    shown: dict[float, str] = {}
    for text in ET.fromstring(show.svg(planned[0])).iter(f"{SVG}text"):
        if "clip-path" in text.attrib:
            line = float(text.attrib["y"])
            shown[line] = shown.get(line, "") + (text.text or "")
    written = [line.strip() for line in show.memory_map(planned[0]).plain.splitlines()]
    lines = [line.replace("\N{NO-BREAK SPACE}", " ").strip() for _, line in sorted(shown.items())]
    assert lines == [*written, ""]


def test_the_picture_has_the_colours_of_the_map(planned: tuple[Placement, Prediction | None]) -> None:
    picture = show.svg(planned[0]).upper()
    assert all(colour in picture for colour in show.COLOURS.values())


def test_the_picture_loads_nothing(planned: tuple[Placement, Prediction | None]) -> None:
    picture = show.svg(planned[0])
    links = [*re.findall(r"url\(([^)]*)\)", picture), *re.findall(r'href="([^"]*)"', picture)]
    assert links
    assert all(link.startswith("#") for link in links)
    assert "@import" not in picture
    assert re.findall(r"https?://[^\"]*", picture) == ["http://www.w3.org/2000/svg"]  # its namespace


def test_the_picture_is_named_after_the_recipe_whatever_its_name() -> None:
    recipe = load("self_moa").model_copy(update={"name": "a<b>&c"})
    root = ET.fromstring(show.svg(plan_recipe(recipe, [card_by_name("A100-40GB")])))
    (title,) = [t for t in root.iter(f"{SVG}text") if t.attrib["class"].endswith("-title")]
    assert title.text == "Memory plan of a<b>&c".replace(" ", "\N{NO-BREAK SPACE}")


def test_json_has_all_of_it(planned: tuple[Placement, Prediction | None]) -> None:
    data = json.loads(json.dumps(show.to_json(*planned)))
    member = data["cards"][0]["slots"][1]["members"][0]
    assert member["model"] == "llama-3.1-70b"
    assert member["weights"] == pytest.approx(39_767_785_472, rel=0.001)  # whole segments
    assert member["loading"] < member["weights"] + member["kv"] + member["activations"]
    # Four sleepers pin 43.4 and 47.5 GiB twice each, and five engines have processes of 5 GiB.
    assert data["host_bytes"][""] == pytest.approx((2 * 43.41 + 2 * 47.51 + 25) * GIB, rel=0.001)
    assert data["prediction"]["swaps"] == 4
    assert show.to_json(planned[0])["prediction"] is None
