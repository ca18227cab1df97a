"""Frames are cut out of bytes that arrive in pieces of any size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.calls.frames import LENGTH, BadFrame, FrameCutter, Taken, from_caller, pack


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(1, 30)))
def test_every_frame_comes_once_and_whole(bodies: list[bytes], sizes: list[int]) -> None:
    sent = b"".join(LENGTH.pack(len(body)) + body for body in bodies)
    cutter, seen, start = FrameCutter(40), [], 0
    for size in [*sizes, len(sent)]:
        seen += list(cutter.feed(sent[start : start + size]))
        start += size
    assert seen == bodies


@given(st.integers(41, 0xFFFF_FFFF), st.integers(1, 4))
def test_a_frame_that_is_too_long_is_refused_once_its_length_is_known(length: int, cut: int) -> None:
    head = LENGTH.pack(length)
    cutter = FrameCutter(40)
    if cut < len(head):
        assert list(cutter.feed(head[:cut])) == []
    else:
        cut = 0
    with pytest.raises(BadFrame):
        list(cutter.feed(head[cut:]))


def test_a_message_is_the_same_after_its_way() -> None:
    (body,) = FrameCutter(1000).feed(pack(Taken(7, 16)))
    assert from_caller.decode(body) == Taken(7, 16)
