"""What the benchmark of known effects compares, and what it allows."""

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.quality.known_effects import allowed, checked, fewest_calls, findings, read, written
from benchmarks.quality.known_models import InProcess, questions, recipe
from configs.schema import Recipe
from jobs.sets import load_set

ROWS, SEED = 4, 0


async def test_printed_findings_are_read_and_each_call_is_expected_once(tmp_path: Path) -> None:
    models = InProcess()
    found = await findings(tmp_path, models, ROWS, SEED)
    assert checked(read(json.dumps(found.to_json()))) == checked(found)
    assert models.calls == fewest_calls(found, ROWS)


def test_the_files_hold_the_questions_and_the_recipe(tmp_path: Path) -> None:
    url = "http://localhost:8/v1"
    _, set_file, _, recipe_file = written(tmp_path, url, ROWS)
    assert [row.turns for row in load_set(set_file).rows] == [row.turns for row in questions(ROWS)]
    kept = yaml.safe_load(Path(recipe_file).read_text("utf-8"))
    assert Recipe.model_validate(kept) == recipe(url)


@pytest.mark.parametrize(("intervals", "may_miss"), [(1, 1), (20, 3), (27, 4), (675, 45)])
def test_as_many_may_miss_as_chance_makes_of_95_percent(intervals: int, may_miss: int) -> None:
    assert allowed(intervals) == may_miss
