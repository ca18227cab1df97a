r"""Finds regular expressions that would run for hours on a text of ordinary length.

Python's `re` tries all ways to split a text between two repeats if one of them stands directly in the
other: `(a+)+$` takes twice as long for each further `a`. Nothing can stop such a search, and the whole
server would wait for it. Such an expression is found by its form: a repeat whose body can be one repeat
alone, with something behind it that may be missing. Other slow forms, such as `(\w|\d)*$`, are not
found.
"""

import re
from collections.abc import Sequence
from typing import Any

parser: Any = re._parser
"""The parser of `re`, which is part of Python from 3.11 on and of no public interface."""
REPEATS = (parser.MAX_REPEAT, parser.MIN_REPEAT)
MANY = 16
"""A repeat of so many times or more counts as one without an end."""


def is_slow(pattern: str) -> bool:
    """Whether an expression, which has to be a valid one, has this form."""
    return _has_nested_repeat(list(parser.parse(pattern)), is_followed=False)


def _has_nested_repeat(items: Sequence[Any], *, is_followed: bool) -> bool:
    for n, (kind, value) in enumerate(items):
        may_fail = is_followed or any(map(_may_fail, items[n + 1 :]))
        if _is_endless(kind, value) and may_fail and _is_ambiguous(list(value[2])):
            return True
        if any(_has_nested_repeat(body, is_followed=may_fail) for body in _bodies(kind, value)):
            return True
    return False


def _bodies(kind: Any, value: Any) -> list[list[Any]]:
    """The sequences of items that an item consists of."""
    if kind in REPEATS:
        return [list(value[2])]
    if kind is parser.SUBPATTERN:
        return [list(value[-1])]
    if kind is parser.BRANCH:
        return [list(each) for each in value[1]]
    if kind in (parser.ASSERT, parser.ASSERT_NOT):
        return [list(value[1])]
    return []


def _is_endless(kind: Any, value: Any) -> bool:
    return kind in REPEATS and value[1] >= MANY


def _is_ambiguous(items: list[Any]) -> bool:
    """Whether these items can be one endless repeat alone."""
    for n, (kind, value) in enumerate(items):
        if any(map(_may_fail, [*items[:n], *items[n + 1 :]])):
            continue
        is_group = kind in (parser.SUBPATTERN, parser.BRANCH)
        if _is_endless(kind, value) or (is_group and any(map(_is_ambiguous, _bodies(kind, value)))):
            return True
    return False


def _may_fail(item: Any) -> bool:
    """Whether an item can be what a text lacks."""
    kind, value = item
    if kind in REPEATS:
        return value[0] > 0 and any(map(_may_fail, value[2]))
    if kind is parser.SUBPATTERN:
        return any(map(_may_fail, value[-1]))
    if kind is parser.BRANCH:
        return all(any(map(_may_fail, each)) for each in value[1])
    return True
