"""Texts as they look."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.text.look_alikes import as_it_looks


@pytest.mark.parametrize(
    ("text", "looks"),
    [
        ("ｗｉｄｅ！／＜", "wide!/<"),
        ("𝐛𝑖𝔤 𝟞", "big 6"),
        ("Ⓐ①", "A1"),
        ("сору", "copy"),
        ("ΑΒΖ", "ABZ"),
        ("a\u200d\ufe0fb", "a\u200b\u200bb"),
        ("<\\/b", "<//b"),
        ("é 中 👍 ж", "é 中 👍 ж"),
    ],
    ids=ascii,
)
def test_a_text_as_it_looks(text: str, looks: str) -> None:
    assert as_it_looks(text) == looks


@settings(max_examples=50)
@given(st.text(max_size=40))
def test_every_place_stays_its_place(text: str) -> None:
    assert len(as_it_looks(text)) == len(text)
    assert as_it_looks(as_it_looks(text)) == as_it_looks(text)


def test_plain_text_looks_like_itself() -> None:
    plain = string.printable.replace("\\", "")
    assert as_it_looks(plain) == plain
    assert as_it_looks(f"{plain}é") == f"{plain}é"
