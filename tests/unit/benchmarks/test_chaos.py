"""The figures of a chaos run, on outcomes and memory that are made up."""

import random
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.chaos import in_turn, limits_of
from benchmarks.faults.chaos_cluster import KINDS, Killed
from benchmarks.faults.chaos_figures import Blow, cut, draw, rows, wrong
from benchmarks.faults.chaos_models import Oracle, recipe
from benchmarks.shared.memory import MemoryLog, Sample, growth
from benchmarks.shared.outcome import LOST, Attempt, Outcome

MIXTURE = recipe("http://unused", 2)


def outcome(due: float, ended: float, *statuses: int, number: int = 0, **more: Any) -> Outcome:
    moa = {"degraded": False, "cut": False, "missing": [], **more.pop("moa", {})}
    attempts = tuple(Attempt(status, due, ended - 0.5 * n) for n, status in enumerate(statuses[::-1]))
    return Outcome(number, due, ended, attempts[::-1], moa=moa, **more)


def blow(kind: str, at: float, whole_at: float | None, until: float) -> Blow:
    return Blow(Killed(kind, "process 1", at), whole_at, until)


GOOD = [outcome(at, at + 1, 200, number=int(at)) for at in (1, 8, 21)]


@pytest.mark.parametrize(
    ("found", "recovery_s"),
    [
        (GOOD, 0),
        ([*GOOD, outcome(9, 12, 503)], 2),
        ([*GOOD, outcome(9, 12, LOST, 200)], 1.5),
        ([*GOOD, outcome(9, 12, 200, error="the stream ended early")], 2),
        ([*GOOD, outcome(14, 19, 200, moa={"degraded": True})], 9),
        ([*GOOD, outcome(15.5, 19, 503)], 0),
        ([*GOOD, outcome(5, 9, 503)], 0),
    ],
    ids=["no harm", "failed", "retried", "broken", "degraded", "due when whole", "ended before"],
)
def test_recovery_lasts_until_the_last_bad_end_of_what_was_due_before_all_was_whole(
    found: list[Outcome], recovery_s: float
) -> None:
    assert blow("ingress", 10, 15, 20).bad_s(found) == recovery_s


def test_requests_count_for_the_last_kill_before_they_ended() -> None:
    found = [*GOOD, outcome(9, 12, 503, number=2), outcome(19, 22, LOST, 200, number=3)]
    table = rows(found, [blow("ingress", 10, 15, 20), blow("controller", 20, None, 30)])
    named = {row["killed"]: row for row in table}
    assert named["ingress"] | {"requests": 1, "raw": 0, "retried": 0} == named["ingress"]
    assert named["controller"] | {"requests": 2, "raw": 0.5, "retried": 1} == named["controller"]
    assert named["all"]["requests"] == 5
    assert named["all, streamed"]["requests"] == 3
    assert named["all"]["whole s max"] == 10, "what never was whole counts until the next kill"


async def test_every_answer_that_is_not_this_request_s_own_is_wrong() -> None:
    oracle = Oracle(MIXTURE)
    await oracle.start()
    whole, without = await oracle.says(7, ()), await oracle.says(7, {"second"})
    by_proposal = await oracle.says(7, {"writer"})
    assert len({whole, without, by_proposal, await oracle.says(8, ())}) == 4

    def said(text: str, *missing: str, cut: bool = False) -> Outcome:
        moa = {"missing": [{"model": model} for model in missing], "cut": cut}
        return outcome(0, 1, 200, number=7, text=text, moa=moa)

    right = [
        said(whole),
        said(without, "second"),
        said(by_proposal, "writer"),
        said("", "first", cut=True),
    ]
    failed = outcome(0, 1, 503, number=7, text="what a broken stream had begun")
    mistakes = [said(whole, "second"), said(without), said(whole[:-1]), said(await oracle.says(8, ()))]
    assert await wrong([*right, failed, *mistakes], MIXTURE) == mistakes


def test_memory_that_grows_is_told_from_processes_that_come_and_go() -> None:
    old, new = object(), object()
    flat = [Sample(at, {old: 100}) for at in range(6)]  # type: ignore[dict-item]
    grown = [*flat[:4], *(Sample(at, {old: 100, new: 50}) for at in (4, 5))]  # type: ignore[dict-item]
    assert growth(flat, lasting=False) == growth(grown, lasting=True) == 1
    assert growth(grown, lasting=False) == 1.5


def test_each_limit_can_be_missed() -> None:
    memory = MemoryLog()
    process: Any = object()
    memory.samples = [Sample(at, {process: 100 + 10 * at}) for at in range(9)]
    found = [outcome(0, 1, 200), outcome(0, 1, 503)]
    limits = limits_of(found, [], {"wrong answers": 1}, memory)
    assert len(limits) == 4
    assert not any(limit.held for limit in limits)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_a_kill_has_cut_is_not_the_limit_s_but_any_other_is(kind: str) -> None:
    before = outcome(9, 11, 200, number=1, error="broke", cut=True)
    later = outcome(13.5, 14, 200, number=2, error="broke", cut=True)
    refused = outcome(9, 13, LOST, LOST, LOST, number=3, error="refused")
    found = [before, later, refused, outcome(0, 14, 200, number=4)]
    memory, process = MemoryLog(), object()
    memory.samples = [Sample(0, {process: 100})]  # type: ignore[dict-item]
    blows, holds = [blow(kind, 10, 15, 20)], kind in {"ingress", "node"}
    assert cut(found, blows, explained=True) == ([before] if holds else [])
    assert cut(found, blows, explained=False) == ([later] if holds else [before, later])
    assert limits_of(found, blows, {}, memory)[0].value == pytest.approx(1 / 3 if holds else 1 / 4)


def test_a_node_s_processes_may_cut_what_began_while_they_were_dying() -> None:
    dying = outcome(12, 12.5, 200, error="broke", cut=True)
    assert cut([dying], [blow("node", 10, 15, 20)], explained=True) == [dying]
    assert cut([dying], [blow("controller", 10, 15, 20)], explained=False) == [dying]


def test_all_kinds_are_killed_before_one_is_again() -> None:
    kinds = in_turn(random.Random(1))
    assert all(sorted(next(kinds) for _ in KINDS) == sorted(KINDS) for _ in range(3))


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_run_is_drawn(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"run.{ending}"
    draw(file, [*GOOD, outcome(9, 12, 503)], [blow("ingress", 10, 15, 20)], began=1.0)
    assert file.stat().st_size > 1000
