"""Effects that are known, found by the command line on real Ray."""

from pathlib import Path

import pytest

from benchmarks.known_effects import (
    Checked,
    checked,
    command,
    fewest_calls,
    findings,
    read,
    wanted,
    written,
)
from benchmarks.known_models import BASELINE, InProcess, recipe
from benchmarks.known_models import serving as behind_a_server
from tests.conftest import Serving

ROWS, SEED = 60, 0
LARGE = 8  # percent points


async def test_known_effects_are_recovered_and_nothing_is_asked_twice(
    serving: Serving, tmp_path: Path
) -> None:
    models, run = InProcess(), str(tmp_path / "run")
    async with behind_a_server(models) as url:
        files = written(tmp_path, url, ROWS)
        with serving(recipe(url)):
            await command("run", *files, "--out", run, "--alone", BASELINE, "--seed", str(SEED))
            found = read(await command("ablate", run, *wanted(), "--json"))
    assert models.calls == fewest_calls(found, ROWS)
    checks = checked(found)
    assert {check.what for check in checks if check.truth == 0 and not check.held} == set()
    large = [check for check in checks if abs(check.truth) > LARGE]
    assert len(large) >= 10
    assert [check for check in large if not _has_its_sign(check)] == []
    here = checked(await findings(tmp_path / "here", InProcess(), ROWS, SEED))
    assert [check.what for check in checks] == [check.what for check in here]
    for check, same in zip(checks, here, strict=True):
        assert check.found.value == pytest.approx(same.found.value)


def _has_its_sign(check: Checked) -> bool:
    low, high = check.found.low, check.found.high
    return low is not None and high is not None and min(low * check.truth, high * check.truth) > 0
