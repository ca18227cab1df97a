"""Lines of the log: the same fields as text and as JSON, and nothing that a stranger can forge."""

import json
import logging
import re
from typing import Any

import pytest

from cluster.logs.line import (
    MOST_CHARACTERS,
    BadShape,
    Formatter,
    Line,
    Shape,
    current_request,
    shape_of,
)

FIELDS = {
    "request": "req-7",
    "stream": False,
    "seconds": 12.3456,
    "stages": {"layer 1": 2.5, "aggregator": 1.0},
    "missing": ["slow:late", "big:empty"],
    "calls": 3,
    "why": None,
}


def line(message: Any, shape: Shape = "text", *args: Any, **more: Any) -> str:
    record = logging.LogRecord("actors.a", logging.WARNING, "", 0, message, args, None)
    record.created = 1_796_000_000.1236
    for name, value in more.items():
        setattr(record, name, value)
    return Formatter(shape, "ingress").format(record)


def test_a_line_of_text_has_time_level_event_and_fields_in_order() -> None:
    assert line(Line("answer", FIELDS)) == (
        "2026-11-30T00:53:20.123Z WARNING answer process=ingress request=req-7 stream=false "
        'seconds=12.346 stages="layer 1:2.5,aggregator:1" missing=slow:late,big:empty calls=3'
    )


def test_a_line_of_json_has_the_same_with_numbers_and_lists() -> None:
    assert json.loads(line(Line("answer", FIELDS), "json")) == {
        "time": "2026-11-30T00:53:20.123Z",
        "level": "WARNING",
        "event": "answer",
        "process": "ingress",
        "request": "req-7",
        "stream": False,
        "seconds": 12.346,
        "stages": {"layer 1": 2.5, "aggregator": 1.0},
        "missing": ["slow:late", "big:empty"],
        "calls": 3,
    }


def test_any_other_message_is_the_event_log_with_the_request_of_its_task() -> None:
    token = current_request.set("req-9")
    said = line("replica %s is %s", "text", "one", "gone")
    current_request.reset(token)
    assert said.endswith('log process=ingress request=req-9 msg="replica one is gone" from=actors.a')


@pytest.mark.parametrize(
    "hostile",
    [
        'a" level=ERROR b="',
        "a\n2026-11-30T00:53:20.124Z ERROR refused key=alice",
        "a\\",
        "\x1b[31mred\x1b[0m",
        "\u202etxt.exe",
        "a\u2028b",
        "\ud800",
        "",
        "=",
    ],
    ids=str.isprintable,
)
def test_no_text_forges_a_line_or_a_field(hostile: str) -> None:
    text = line(Line("refused", {"path": hostile, "code": "x"}))
    assert text.isprintable()
    quoted = re.fullmatch(r'.* refused process=ingress path=("(?:[^"\\]|\\.)*"|[^"\s=]+) code=x', text)
    assert quoted is not None
    as_json = line(Line("refused", {"path": hostile}), "json")
    assert as_json.isprintable()
    assert json.loads(as_json)["path"] == hostile


def test_a_message_of_several_lines_cannot_begin_another_line() -> None:
    said = line("at\n2026-11-30T00:53:20.124Z ERROR refused\n\x1b[1m")
    first, *rest = said.split("\n")
    assert first.endswith("msg=at from=actors.a")
    assert [text[:4] for text in rest] == ["    ", "    "]
    assert rest[1] == "    \\u001b[1m"
    told = json.loads(line("at\nfile 1\nfile 2", "json"))
    assert (told["msg"], told["more"]) == ("at", "file 1\nfile 2")


def test_a_long_text_is_cut_and_a_traceback_is_not() -> None:
    said = line(Line("refused", {"why": "x" * 10_000}))
    assert len(said) < MOST_CHARACTERS + 100
    assert said.endswith("...")
    try:
        raise ValueError("broken")
    except ValueError as error:
        caught = (ValueError, error, error.__traceback__)
    assert "ValueError: broken" in line("it failed", exc_info=caught).splitlines()[-1]


def test_only_two_shapes_exist() -> None:
    assert [shape_of(value) for value in (None, "", "text", "json")] == ["text", "text", "text", "json"]
    with pytest.raises(BadShape, match="'JSON'; it has to be text or json"):
        shape_of("JSON")
