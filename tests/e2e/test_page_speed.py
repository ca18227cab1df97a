"""The page on a machine that is four times slower: long tasks while columns grow, memory over turns.

It takes two minutes and needs a machine that does nothing else: `make test-page-speed`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.browser.installed import CAN_RUN, WHY_NOT, install_browser, run_node
from tests.e2e.test_page import urls

__all__ = ["urls"]

SECONDS = 60
TURNS = 100
LONGEST_MS = 50
"""From so many milliseconds on, people notice that a page does not answer (W3C Long Tasks)."""
SLOWER = 4
"""How many times slower the machine is that is thought of."""
BYTES_A_TURN = 50_000
"""What a turn may leave on the heap at most: it holds the chat's own text, of about 2 kB."""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CAN_RUN, reason=WHY_NOT)]


@pytest.fixture(scope="module")
def found(urls: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(
        run_node(install_browser(), "node", "page_speed.mjs", urls, str(SECONDS), str(TURNS))
    )
    folder: Path = tmp_path_factory.mktemp("speed")
    (folder / "figures.json").write_text(json.dumps(figures))
    print(figures)
    return figures


def test_no_task_takes_long_by_its_cpu_time(found: dict[str, Any]) -> None:
    _first, *others = found["work"]["longest"]
    assert all(ms * SLOWER <= LONGEST_MS for ms in others)


def test_six_columns_grow_without_a_long_task(found: dict[str, Any]) -> None:
    growth = found["growth"]
    assert len(growth["written"]) == 6
    assert all(characters > 8_000 for characters in growth["written"])
    later = growth["tasks"][1:]  # the first draws the columns
    assert [ms for _, ms in later if ms > LONGEST_MS] == []


def test_the_heap_is_flat_over_many_turns(found: dict[str, Any]) -> None:
    first, *_, last = found["memory"]
    turns = last["turn"] - first["turn"]
    assert (last["bytes"] - first["bytes"]) / turns < BYTES_A_TURN
    assert last["nodes"] < 1.5 * first["nodes"]
