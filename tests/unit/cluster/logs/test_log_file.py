"""The log's file: lines of several writers stay whole, and followers see them."""

import logging
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.logs.file import Follower, LogFile
from cluster.logs.line import Line
from cluster.logs.setup import NOT_SHOWN, OURS, log_name, log_to


def test_lines_of_several_writers_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    text = "x" * 3000

    def write(name: str) -> None:
        file = LogFile(path)
        for number in range(50):
            file.write(f"{name}{number} {text}")

    threads = [threading.Thread(target=write, args=[name]) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = path.read_text().splitlines()
    assert sorted(lines) == sorted(f"{name}{number} {text}" for name in "abcd" for number in range(50))


def test_a_full_file_is_put_aside_once_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    writers = [LogFile(path, most_bytes=100, kept=2) for _ in range(3)]
    for number in range(60):
        writers[number % 3].write(f"line {number:04}")
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == ["a.log", "a.log.1", "a.log.2"]
    kept = [
        each.read_text().splitlines() for each in (tmp_path / "a.log.2", tmp_path / "a.log.1", path)
    ]
    assert [line for file in kept for line in file] == [
        f"line {number:04}" for number in range(60 - sum(map(len, kept)), 60)
    ]
    assert len(kept[0]) == 10


def test_a_file_that_was_renamed_or_removed_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    file = LogFile(path)
    file.write("one")
    path.rename(tmp_path / "old")
    file.write("two")
    path.unlink()
    file.write("three")
    assert path.read_text() == "three\n"
    assert (tmp_path / "old").read_text() == "one\n"


def test_a_file_that_cannot_be_written_costs_no_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = LogFile(tmp_path / "none" / "a.log")
    file.write("one")
    file.write("two")
    assert capsys.readouterr().err.count("cannot be written: No such file or directory") == 1


def test_a_follower_shows_new_lines_whole_and_over_a_change_of_files(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    file = LogFile(path, most_bytes=40, kept=9)
    file.write("before")
    shown: queue.Queue[str] = queue.Queue()
    follower = Follower(path, shown.put)
    with path.open("a") as other:
        other.write("half ")
        other.flush()
        other.write("line\n")
    for number in range(20):
        file.write(f"line {number}")
        if number % 3 == 0:  # a follower that is slower than a whole file misses it, as any does
            while not (last := shown.get(timeout=5)).endswith(f"line {number}\n"):
                assert last.endswith("\n")
    follower.stop()
    assert shown.get(timeout=5) == "line 19\n"


@pytest.fixture
def loggers() -> Iterator[None]:
    found = [logging.getLogger(name) for name in OURS]
    before = [(each.handlers, each.level, each.propagate) for each in found]
    yield
    for each, (handlers, level, propagate) in zip(found, before, strict=True):
        each.handlers, each.propagate = handlers, propagate
        each.setLevel(level)


@pytest.mark.usefixtures("loggers")
def test_all_lines_of_a_process_go_to_the_file_and_to_standard_error_where_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(NOT_SHOWN[0], raising=False)
    log_to(tmp_path / "a.log", "ingress", "text")
    logging.getLogger("serve_app.x.y").info(Line("answer", {"model": "mix"}))
    logging.getLogger("other").info("not ours")
    monkeypatch.setenv(*NOT_SHOWN)
    log_to(tmp_path / "a.log", "ingress", "json")
    logging.getLogger("actors.x").warning("gone: %s", "one")
    logging.getLogger("actors.x").debug("nothing")
    first, second = (tmp_path / "a.log").read_text().splitlines()
    assert first.endswith("INFO answer process=ingress model=mix")
    assert '"msg":"gone: one"' in second
    assert capsys.readouterr().err == f"{first}\n"


@pytest.mark.usefixtures("loggers")
def test_a_record_that_cannot_be_formatted_disturbs_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_to(tmp_path / "a.log", "ingress", "text")
    logging.getLogger("actors.x").warning("%d words", "a prompt")
    assert "a prompt" not in capsys.readouterr().err
    assert not (tmp_path / "a.log").exists()


def test_each_application_has_a_file_of_its_own() -> None:
    assert log_name("slimmoa") == "slimmoa.log"
    assert log_name("slimmoa-serve-tiny-8001") == "slimmoa-serve-tiny-8001.log"
    assert log_name("a/../b") == "slimmoa-a-..-b.log"
