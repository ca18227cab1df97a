"""A card's life on real Ray: engines that are latches take the memory of a fake GPU, read over NVML.

`card_life.py` plays the scenes on a Ray of its own, once for all tests of this file: its processes have
the fake NVML. The fake card notes whenever an engine asks for more than there is.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FAKE_CARD = Path(__file__).with_name("fake_card")
GIB = 1 << 30
pytestmark = pytest.mark.timeout(600)
"""The scenes take about a minute on two cores that have nothing else to do."""


@pytest.fixture(scope="module")
def scenes() -> dict[str, dict[str, Any]]:
    """What each scene found, by name."""
    environment = {**os.environ, "PYTHONPATH": str(FAKE_CARD), "FAKE_CARD": "1"}
    for name in ("SLIMMOA_CARDS", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "RAY_ADDRESS"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "tests.ray.card_life"]  # a process has one cluster at most
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    found = {scene.pop("scene"): scene for scene in map(json.loads, lines)}
    errors = [scene["error"] for scene in found.values() if "error" in scene]
    assert ended.returncode == 0 and not errors, "\n".join([*errors, ended.stderr[-3000:]])  # noqa: PT018
    return found


def test_the_card_is_never_asked_for_more_than_it_has(scenes: dict[str, dict[str, Any]]) -> None:
    assert [scene["forbidden"] for scene in scenes.values()] == [[]] * 6
    last = list(scenes.values())[-1]
    assert last["peak"] == 23 * GIB  # the larger model and the desktop
    assert last["total"] == 24 * GIB


def test_a_first_start_that_fails_twice_is_tried_again(scenes: dict[str, dict[str, Any]]) -> None:
    scene = scenes["failed_starts"]
    assert scene["starts"] == 3
    assert scene["answers"] == ["a done", "b done", "b done"]


def test_a_replan_while_it_serves_gives_the_same_plan_and_loses_no_answer(
    scenes: dict[str, dict[str, Any]],
) -> None:
    scene = scenes["replan"]
    assert scene["same_plan"]
    assert set(scene["answers"]) <= {"a done", "503"}  # whole, or to be sent again
    assert "a done" in scene["answers"]
    assert scene["then"] == ["a done", "b done", "b done"]


def test_memory_that_comes_back_ten_seconds_late_is_waited_for(
    scenes: dict[str, dict[str, Any]],
) -> None:
    scene = scenes["late_memory"]
    assert scene["too_early"] == []
    assert scene["answer"] == "b done"


def test_a_neighbour_that_takes_memory_delays_a_wake_and_breaks_nothing(
    scenes: dict[str, dict[str, Any]],
) -> None:
    scene = scenes["neighbour"]
    assert scene["too_early"] == []
    assert [scene["answer"], *scene["then"]] == ["b done", "a done", "b done"]


def test_an_engine_that_dies_asleep_is_started_before_a_user_waits_for_it(
    scenes: dict[str, dict[str, Any]],
) -> None:
    scene = scenes["dies_asleep"]
    assert scene["starts_in_a_users_turn"] == []
    assert scene["answers"] == ["b done", "a done"]


def test_a_new_plan_waits_for_the_old_one_though_all_keepers_are_killed(
    scenes: dict[str, dict[str, Any]],
) -> None:
    scene = scenes["redeploy"]
    assert scene["new_keepers"] == 1
    assert scene["started_while_it_was_in_work"] == []
    assert scene["first_to_happen_then"] == "a stop"
    assert scene["answer"] == "a done"
    assert scene["then"] == ["a done", "b done", "c done", "c done"]
