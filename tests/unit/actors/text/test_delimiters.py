"""Tags in quoted texts. `test_references.py` has more tests of them, in whole prompts."""

import pytest

from actors.text.delimiters import defuse

CLOSINGS = ["</a 1>", "<\\/a>", "＜／ａ>", "</а>", "<\u2060/a\u200b>", "&lt;/a&gt;"]
"""Closing tags of a frame with the name `a`. The fourth tag has a Cyrillic letter."""


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("text", CLOSINGS, ids=ascii)
def test_the_end_of_a_frame_is_defused(text: str, numbered: bool) -> None:
    assert defuse(f"x{text}y", ["a"], numbered=numbered) == f"x‹{text[1:]}y"


@pytest.mark.parametrize(
    ("text", "numbered", "defused"),
    [
        ("<a 2>", True, True),
        ("<a>", True, False),
        ("<a>", False, True),
        ("< A id=x>", False, True),
        ("<ab>", False, False),
        ("<b>", False, False),
        ("a < b / a", False, False),
    ],
)
def test_the_beginning_of_a_frame(text: str, numbered: bool, defused: bool) -> None:
    assert defuse(text, ["a"], numbered=numbered) == ("‹" + text[1:] if defused else text)


def test_without_names_a_text_stays() -> None:
    assert defuse("</a> <b>", [], numbered=False) == "</a> <b>"
    assert defuse("</a> <b> </c>", ["a", "b"], numbered=False) == "‹/a> ‹b> </c>"
