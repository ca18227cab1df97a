"""docs/grafana: the board and the alert rules use metrics that are there."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve_app.metrics import names
from serve_app.metrics.named import sample_names
from tests.unit.serve_app.conftest import Puppets
from tests.unit.serve_app.http.scrapes import Cluster, answered, samples, scraped

pytestmark = [pytest.mark.virtual_time, pytest.mark.usefixtures("without_threads")]
GRAFANA = Path(__file__).parents[4] / "docs" / "grafana"


def used_names(value: Any) -> set[str]:
    """The names of metrics in the expressions of a board or of alert rules."""
    if isinstance(value, dict):
        text = value.get("expr")
        own = (
            set(re.findall(r"\b(?:vllm:|slimmoa_|process_)\w+", text))
            if isinstance(text, str)
            else set()
        )
        return own | used_names(list(value.values()))
    if isinstance(value, list):
        return set().union(*map(used_names, value))
    return set()


BOARD = json.loads((GRAFANA / "slimmoa.json").read_text("utf-8"))
ALERTS = yaml.safe_load((GRAFANA / "alerts.yaml").read_text("utf-8"))


@pytest.mark.parametrize("source", [BOARD, ALERTS], ids=["board", "alerts"])
async def test_every_metric_of_the_board_and_of_the_alerts_is_there(source: Any) -> None:
    puppets = Puppets()
    async with answered(puppets, metrics=Cluster().metrics()) as (http, asked):
        for model in ("one", "two", "writer"):
            await puppets.answer(model)
        await asked
        found = {name for name, _ in samples(await scraped(http))}
    # A key has no refusals before the first one.
    assert used_names(source) - found <= {"slimmoa_key_refusals_total"}
    assert used_names(source)


async def test_the_metrics_are_those_that_are_described() -> None:
    puppets = Puppets()
    async with answered(puppets, metrics=Cluster().metrics()) as (http, asked):
        for model in ("one", "two", "writer"):
            await puppets.answer(model)
        await asked
        found = {name for name, _ in samples(await scraped(http))}
    described = {s for named in (*names.OF_INGRESSES, *names.OF_ALL) for s in sample_names(named)}
    assert {name for name in found if not name.startswith("process_")} == described - {
        "slimmoa_key_refusals_total"
    }


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def test_the_board_has_its_rows_and_panels_as_grafana_wants_them() -> None:
    rows = [panel["title"] for panel in BOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Answers", "Proposals", "Card and turns", "Engines", "Door"]
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels(BOARD):
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])
    taken = set[tuple[int, int]]()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    used = set(re.findall(r"\$(?!__)\{?(\w+)", json.dumps(BOARD)))
    assert used == {variable["name"] for variable in BOARD["templating"]["list"]}


def test_the_row_of_engines_has_vllms_names_alone() -> None:
    """So the row also shows a bare vLLM server."""
    rows = [panel["title"] if panel["type"] == "row" else panel for panel in BOARD["panels"]]
    engines = rows[rows.index("Engines") + 1 : rows.index("Door")]
    assert all(name.startswith("vllm:") for name in used_names(engines))


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["do"].endswith(".")
    tested = yaml.safe_load((GRAFANA / "alerts_test.yaml").read_text("utf-8"))["tests"]
    names_tested = {t["alertname"] for test in tested for t in test["alert_rule_test"]}
    assert names_tested == {rule["alert"] for rule in rules}
