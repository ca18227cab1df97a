"""The benchmark of many rows, with few."""

import json
from pathlib import Path

import pytest
import typer

from benchmarks.speed import rows
from jobs.store import Store


async def test_rows_are_answered_and_looked_at_block_by_block(tmp_path: Path) -> None:
    samples = await rows.measured(40, 4, tmp_path)
    assert [sample.rows for sample in samples] == list(range(0, 41, 4))
    with Store.open(tmp_path, read_only=True) as store:
        assert store.answered_count("mix") == 44
        answers = list(store.answers("mix"))
    assert len({used.key for answer in answers for used in answer.used}) == 44 * rows.CALLS_PER_ROW
    blocks = rows.per_block(samples)
    assert [block["rows"] for block in blocks] == list(range(4, 41, 4))
    assert sum(block["swaps"] for block in blocks) > 0
    assert all(block["database MB"] > 0 and block["peak MB"] > 0 for block in blocks)


@pytest.mark.parametrize(("limit", "code"), [(1e9, 0), (0, 1)])
def test_a_missed_limit_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float, code: int
) -> None:
    monkeypatch.setattr(rows, "CPU_LIMIT", limit)
    monkeypatch.setattr(rows, "MEMORY_LIMIT", 1e9)
    ended = 0
    try:
        rows.main(rows=30, in_flight=1, json=tmp_path / "figures.json")
    except typer.Exit as exit_:
        ended = exit_.exit_code
    assert ended == code
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [limit["held"] for limit in figures["limits"]] == [code == 0, True]
    assert len(figures["rows"]) == rows.BLOCKS
