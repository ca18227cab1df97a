"""The comparison of methods on scripted members whose right answers are known, and the table of it."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality import known_panels
from benchmarks.quality.local_models import OneModelAtATime
from benchmarks.quality.method_figures import print_table, read_results, read_seconds
from benchmarks.quality.methods import Worker, variants
from benchmarks.quality.picked_places import Panel, PanelRow, print_picks
from configs.load import load
from jobs.records import Row
from jobs.store import Store
from jobs.stored_calls import StoredCalls
from tests.unit.scripts import Asked, FakeModels, Step
from tests.unit.serve_app.mixture.comparing import is_short, tokens

BIG, SMALL = "qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b"
ABOUT = {"set": "gsm8k", "config": "small_cpu", "samples": {BIG: 2, SMALL: 2}}


def member(right: bool, seconds: float = 0.0) -> Any:
    def script(asked: Asked) -> list[Step]:
        if is_short(asked):
            return [tokens({"1": 0.4, "2": 0.3, "3": 0.2, "4": 0.1, "no": 1.0})]
        number = int(asked.messages[-1]["content"].split()[1])
        return [seconds, f"So\n#### {number if right else 1000 + (asked.sampling.seed or 0)}"]

    return script


async def test_the_table_knows_what_the_script_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The small one is always right with the same answer, the big one always wrong, each time
    otherwise: a vote finds the right answer, and the best member alone never does. The best member is
    the first place, though its proposal comes last."""
    asked = [Row(n, (f"Say {n + 200} please",), references=(str(n + 200),)) for n in range(8)]
    models = FakeModels({BIG: member(right=False, seconds=1.0), SMALL: member(right=True)})
    with Store.open(tmp_path) as store:
        async with StoredCalls(store, models, {BIG: "1", SMALL: "1"}, {BIG: 9, SMALL: 9}) as calls:
            methods = variants(load("small_cpu"), 2, "number")
            worker = Worker(store, calls, tmp_path / "methods.jsonl")
            await worker.answer_all(methods, asked)
            made = len(models.asked)
            await Worker(store, calls, tmp_path / "methods.jsonl").answer_all(methods, asked)
    assert len(models.asked) == made
    results = read_results(tmp_path / "methods.jsonl")
    assert len(results) == 8 * len(methods)
    (tmp_path / "seconds.jsonl").write_text('{"method": "vote", "s": 2}\n{"method": "vote", "s": 4}\n')
    print_table(results, "number", ABOUT, read_seconds(tmp_path / "seconds.jsonl"))
    shown = capsys.readouterr().out
    assert f"samples: 2 of {BIG}, 2 of {SMALL}" in shown
    assert "| vote | 8 | 100.0 (67.6 to 100.0) | 0.0 | 100.0 (" in shown
    assert "| best, vote of as many | 8 | 0.0" in shown
    assert "agreement" not in shown.split("| exit, else vote |")[1].split("\n")[0]
    assert "vote of all members: 100.0" in shown
    assert f"without {SMALL}: 0.0 (0.0 to 32.4), -100.0 (" in shown
    assert f"without {BIG}: 100.0 (67.6 to 100.0), 0.0 (" in shown
    assert "oracle (no pick or vote can do better): 100.0" in shown
    assert "a proposal drawn at random: 50.0" in shown
    assert "8 questions can show a difference of 31.0 points" in shown


def result(row: int, method: str, right: bool, ended: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """An answer whose proposals came in this order of places."""
    return {
        "method": method, "row": row, "expected": "1", "text": f"#### {int(right)}", "way": method,
        "chosen": None, "proposals": [(place, "x", f"#### {text}", None) for place, text in ended],
        "calls": 2, "read": 0, "written": 0, "models": 1,
    }  # fmt: skip


def test_each_method_stands_beside_the_best_member_on_its_own_questions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second method has answered only one of two questions, on which the best member is wrong."""
    lines = [
        result(0, "vote", True, [(0, "1"), (1, "2")]),
        result(1, "vote", False, [(0, "2"), (1, "1")]),
        result(1, "select", True, [(0, "2"), (1, "1")]),
    ]
    (tmp_path / "methods.jsonl").write_text("\n".join(map(json.dumps, lines)))
    print_table(read_results(tmp_path / "methods.jsonl"), "number", ABOUT, {})
    shown = capsys.readouterr().out
    assert "| vote | 2 | 50.0 (9.5 to 90.5) | 50.0 | 0.0 (" in shown
    assert "| select | 1 | 100.0 (20.7 to 100.0) | 0.0 | " in shown


async def test_models_of_one_machine_run_one_after_the_other() -> None:
    """Calls of one model run side by side; a call of the other waits until none of them is left."""
    turn, told = OneModelAtATime(), []
    ends = {name: asyncio.Event() for name in ("a1", "a2", "b1")}

    async def call(name: str) -> None:
        async with turn.running(name[0]):
            told.append(name)
            await ends[name].wait()

    calls = [asyncio.create_task(call(name)) for name in ends]
    for _ in range(9):
        await asyncio.sleep(0)
    assert told == ["a1", "a2"]
    ends["a1"].set()
    await calls[0]
    for _ in range(9):
        await asyncio.sleep(0)
    assert told == ["a1", "a2"]
    ends["a2"].set()
    ends["b1"].set()
    await asyncio.gather(*calls)
    assert told == ["a1", "a2", "b1"]


def test_picks_are_told_by_place_length_and_worth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model always prefers the second place and the text of x, which is the better one in half of
    the rows."""
    panel = Panel(
        ("x", "y"),
        tuple(
            PanelRow(n, "p", ("long text", "text"), (1.0, 0.0) if n % 2 else (0.2, 0.6))
            for n in range(10)
        ),
    )
    replies = [{"1": 0.45, "2": 0.55}, {"1": 0.25, "2": 0.75}]
    lines = [json.dumps({"row": n, "replies": replies}) for n in range(10)]
    (tmp_path / "picks.jsonl").write_text("\n".join(lines))
    print_picks(tmp_path, panel, "z")
    shown = capsys.readouterr().out
    assert "10 rows, 20 of 20 replies read" in shown
    assert "| 2 | 0.650 | 100.0" in shown
    assert "x: picked in 100.0" in shown
    assert "pick the longest text in 100.0" in shown
    assert "picks the best in 50.0 (23.7 to 76.3)% of 10 rows whose texts differ in worth" in shown
    assert "worth: picks 60.0, always the best model 60.0, a random text 45.0, the oracle 80.0" in shown


def test_options_have_the_right_one_first_and_three_wrong_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [
        {"question": "q0", "choices": ["a", "b", "c"], "expected_index": 1},  # too few choices
        {"question": "q1", "choices": ["a", "b", "c", "d", "e"], "expected_index": 2},
        {"ctx": "q2", "endings": ["a", "b", "c", "d"], "expected_index": 3},
    ]
    monkeypatch.setattr(known_panels, "cases", lambda _name: made)
    monkeypatch.setattr(known_panels, "rows", lambda _name: [Row(n, ("",)) for n in range(3)])
    panel = known_panels.options("hellaswag", 9)
    assert [row.index for row in panel.rows] == [1, 2]
    assert [row.texts[0] for row in panel.rows] == ["c", "d"]
    assert set(panel.rows[0].texts[1:]) < {"a", "b", "d", "e"}
    assert panel.rows[1].prompt.endswith("q2")
    assert {row.worth for row in panel.rows} == {(1.0, 0.0, 0.0, 0.0)}
    assert known_panels.options("hellaswag", 1).rows == panel.rows[:1]
    pairs = known_panels.options("hellaswag", 9, of=2)
    assert [(row.index, len(row.texts), row.worth) for row in pairs.rows] == [
        (n, 2, (1.0, 0.0)) for n in range(3)
    ]


def test_stored_proposals_are_worth_what_their_answers_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model picks the first of two proposals. Of the three questions, the first has two right
    proposals, the second has a right and a wrong proposal, and the third lacks a proposal."""
    texts = [("#### 1", "#### 1"), ("#### 2", "#### 7"), ("#### 3",)]
    lines = [
        {
            "method": "vote", "row": n, "expected": str(n + 1), "text": "", "way": "vote", "chosen": 0,
            "proposals": [(place, "x", text, None) for place, text in enumerate(each)],
            "calls": 2, "read": 0, "written": 0, "models": 1,
        }
        for n, each in enumerate(texts)
    ]  # fmt: skip
    (tmp_path / "methods.jsonl").write_text("\n".join(map(json.dumps, lines)))
    asked = [Row(n, (f"q {known_panels.STEP_BY_STEP}",)) for n in range(3)]
    monkeypatch.setattr(known_panels, "rows", lambda _name: asked)
    assert (
        known_panels.stored(tmp_path, "gsm8k", "number", brief=False).rows[0].prompt
        == asked[0].turns[0]
    )
    panel = known_panels.stored(tmp_path, "gsm8k", "number", brief=True)
    assert panel.rows[0].prompt == f"q {known_panels.BRIEFLY}"
    assert panel.names == ("x, sample 0", "x, sample 1")
    assert [row.worth for row in panel.rows] == [(1.0, 1.0), (1.0, 0.0)]
    picks = [{"row": n, "replies": [{"1": 0.9, "2": 0.1}, {"1": 0.2, "2": 0.8}]} for n in range(2)]
    (tmp_path / "picks.jsonl").write_text("\n".join(map(json.dumps, picks)))
    print_picks(tmp_path, panel, "z")
    assert "picks the best in 100.0 (20.7 to 100.0)% of 1 rows" in capsys.readouterr().out
