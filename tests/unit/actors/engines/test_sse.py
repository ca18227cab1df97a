from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engines import sse
from actors.engines.sse import EventStream, EventTooLong


def parse(*received: bytes) -> list[bytes]:
    stream = EventStream()
    return [data for part in received for data in stream.feed(part)] + list(stream.end())


@pytest.mark.parametrize(
    ("received", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b": comment\n\ndata: a\n\n", [b"a"]),
        (b"event: x\nid: 1\nretry: 5\ndata: a\n\n", [b"a"]),
        (b"event: x\n\n\n\n", []),
        (b"data: a", [b"a"]),
        (b"data: a\n", [b"a"]),
        (b"data: a\r", [b"a"]),
        ("data: é\u2028\n\n".encode(), ["é\u2028".encode()]),
        (b"", []),
    ],
)
def test_events_are_found(received: bytes, events: list[bytes]) -> None:
    assert parse(received) == events


PIECES = [b"data: a", b"data:b", b": c", b"\n", b"\r\n", b"\r", b"\n\n", b"\r\n\r\n", b"event: x"]


@given(st.lists(st.sampled_from(PIECES)).map(b"".join), st.lists(st.integers(0, 60)))
def test_it_does_not_matter_where_the_bytes_are_cut(received: bytes, cuts: list[int]) -> None:
    bounds = [0, *sorted(min(cut, len(received)) for cut in cuts), len(received)]
    parts = [received[a:b] for a, b in pairwise(bounds)]
    assert parse(*parts) == parse(received)


@pytest.mark.parametrize("unit", [b"x", b"data: x\n"], ids=["one line", "many lines"])
def test_an_event_without_end_is_refused(unit: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MOST_BYTES", 1000)
    stream = EventStream()
    with pytest.raises(EventTooLong, match="more than 1,000 bytes"):
        any(list(stream.feed(unit)) for _ in range(1001))
