"""Effects that are known, found by the command line on real Ray."""

import asyncio
from pathlib import Path

import pytest
import ray

from benchmarks.quality.known_effects import (
    Checked,
    checked,
    fewest_calls,
    findings,
    findings_of_commands,
)
from benchmarks.quality.known_models import InProcess, recipe
from tests.conftest import HOST, Serving, free_port

ROWS, SEED = 30, 0
LARGE = 8  # percent points


def test_known_effects_are_recovered_and_nothing_is_asked_twice(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, port = InProcess(), free_port()
    # Other tests may have a Ray of their own on this machine, which the commands are not to use.
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    with serving(recipe(f"http://{HOST}:{port}/v1")):
        found = asyncio.run(findings_of_commands(tmp_path, models, ROWS, SEED, port))
    assert models.calls == fewest_calls(found, ROWS)
    checks = checked(found)
    assert [check for check in checks if check.truth == 0 and not check.held] == []
    large = [check for check in checks if abs(check.truth) > LARGE]
    assert len(large) == 12
    assert [check for check in large if not _has_its_sign(check)] == []
    here = checked(asyncio.run(findings(tmp_path / "here", InProcess(), ROWS, SEED)))
    assert [check.what for check in checks] == [check.what for check in here]
    for check, same in zip(checks, here, strict=True):
        assert check.found.value == pytest.approx(same.found.value)


def _has_its_sign(check: Checked) -> bool:
    low, high = check.found.low, check.found.high
    return low is not None and high is not None and min(low * check.truth, high * check.truth) > 0
