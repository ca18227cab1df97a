"""Expressions that a short text would hold up for hours, and expressions that look like them."""

import pytest

from configs.slow_patterns import is_slow


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+$",
        r"(a*)*b",
        r"Answer: (?:\w+\s*)+\.",
        r"(?:\s*\d+)*x",
        r"(?:(?:x|[^,]+),?)+;",
        r"((a+){2,40})+!",
        r"(?=(\d+)+$)",
        r"((\w+\s?)*)\s*END",
        r"(.*)*?z",
    ],
)
def test_a_repeat_directly_in_a_repeat_is_slow(pattern: str) -> None:
    assert is_slow(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"####\s*(-?[\d,]+)",
        r"(?i)answer:\s*(.*)",
        r"(?:\d+,)*\d+",
        r"Answer: ((?:\w+\s*)+)",
        r"\*\*(.+?)\*\*",
        r"(?:[A-Z]\.)+[A-Z]",
        r"(a{1,3})+$",
        r"yes|no",
        r"(?<!\d)(\d{4})(?!\d)",
        r"(?P<x>ab+)(?P=x)*",
        r"((?:-|\+)?\d+(?:\.\d+)?)\s*$",
    ],
)
def test_other_expressions_are_not(pattern: str) -> None:
    assert not is_slow(pattern)
