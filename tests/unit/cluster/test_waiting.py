"""When a wait is said, and what is said."""

import threading

import pytest

from cluster import waiting
from cluster.waiting import WaitTeller, next_line_s, tell_waiting


def test_a_wait_is_said_after_5_seconds_and_then_less_and_less_often() -> None:
    said, now = [], 0.0
    while now < 300:
        now = next_line_s(now)
        said.append(now)
    assert said == [5, 10, 20, 40, 80, 140, 200, 260, 320]


def test_a_short_wait_says_nothing_and_a_long_one_what_it_is_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    with tell_waiting("the judge", lines.append):
        pass
    monkeypatch.setattr(waiting, "FIRST_S", 0.001)
    second = threading.Event()

    def say(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            second.set()

    with tell_waiting(lambda: "the judge", say):
        assert second.wait(30)
    assert lines[:2] == ["waiting for the judge since 0 s"] * 2


def test_a_line_that_cannot_be_made_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST_S", 0.001)
    asked, lines = threading.Event(), list[str]()

    def what() -> str:
        asked.set()
        raise RuntimeError("nobody knows")

    with tell_waiting(what, lines.append):
        assert asked.wait(30)
    assert lines == []


def test_many_callers_that_wait_for_one_thing_say_it_once() -> None:
    lines: list[str] = []
    teller = WaitTeller(lines.append)
    for now in (0, 1, 4.9, 5, 5.1, 6, 10, 11):
        teller.waits("model 'a'", now, "refused")
        teller.waits("model 'b'", 0, "refused")
    assert lines == [
        "waiting for model 'a' since 5 s: refused",
        "waiting for model 'a' since 10 s: refused",
    ]
    teller.ends("model 'a'")
    teller.waits("model 'a'", 100, "gone")
    teller.waits("model 'a'", 105, "gone")
    assert lines[2:] == ["waiting for model 'a' since 5 s: gone"]
