"""A plan on paper: every figure that it shows is the plan's."""

import json
import xml.etree.ElementTree as ET
from io import StringIO

import pytest
from rich.console import Console

from cluster.cards.card import GIB
from cluster.cards.catalog import card_by_name
from cluster.plan import show
from cluster.plan.footprint import gib
from cluster.plan.placement import Placement
from cluster.plan.planner import checkpoints_of, plan
from cluster.plan.predict import Prediction, predict
from configs.load import load

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def planned() -> tuple[Placement, Prediction | None]:
    recipe = load("slim_moa_a100")
    checkpoints = checkpoints_of(recipe)
    placement = plan(recipe, checkpoints, [card_by_name("A100-80GB"), card_by_name("A100-80GB", 1)])
    return placement, predict(recipe, checkpoints, placement)


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
    member = planned[0].seats("gemma-2-9b-wpo")[0].member
    figures = [member.weights, member.kv, member.activations + member.residue]
    settings = f"0.3333 {member.utilization:.4f} 0.0 s 66 / 513"
    assert " ".join(gemma.split()) == (
        f"0 A100-80GB gemma-2-9b-wpo always {' '.join(map(gib, figures))} {settings}"
    )
    assert sum("1 of 2 in turns" in line for line in lines) == 4


def test_the_summary_calls_a_prediction_a_prediction(
    planned: tuple[Placement, Prediction | None],
) -> None:
    words = show.summary(*planned)
    assert "host RAM on the host for sleeping models: 151.6 GiB" in words
    assert "predicted, not measured" in words
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


def test_the_picture_is_to_scale_and_within_its_frame(
    planned: tuple[Placement, Prediction | None],
) -> None:
    root = ET.fromstring(show.svg(planned[0]))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    boxes = root.findall(f"{SVG}rect")
    weights = [b for b in boxes if b.attrib["fill"] == show.COLOURS["weights"]]
    scale = show.CHART / card_by_name("A100-80GB").total_bytes
    sizes = sorted(float(b.attrib["width"]) for b in weights)[1:]  # without the legend's
    expected = sorted(seat.member.weights * scale for seat in planned[0].seats())
    assert sizes == [pytest.approx(size, abs=0.1) for size in expected]
    for box in boxes:
        x, y, w, h = (float(box.attrib[key]) for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
    words = {text.text for text in root.findall(f"{SVG}text")}
    assert {"gemma-2-9b-wpo", "llama-3.1-70b", "weights", "KV cache", "0 GiB", "70"} <= words


def test_names_cannot_break_the_picture() -> None:
    recipe = load("self_moa").model_copy(update={"name": "a<b>&c"})
    placement = plan(recipe, checkpoints_of(recipe), [card_by_name("A100-40GB")])
    titles = [t.text for t in ET.fromstring(show.svg(placement)).findall(f"{SVG}title")]
    assert titles == ["Memory plan of a<b>&c"]


def test_json_has_all_of_it(planned: tuple[Placement, Prediction | None]) -> None:
    data = json.loads(json.dumps(show.to_json(*planned)))
    member = data["cards"][0]["slots"][1]["members"][0]
    assert member["model"] == "llama-3.1-70b"
    assert member["weights"] == 39_767_785_472
    assert data["host_bytes"][""] == pytest.approx(151.6 * GIB, rel=0.001)
    assert data["prediction"]["swaps"] == 4
    assert show.to_json(planned[0])["prediction"] is None
