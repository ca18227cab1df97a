"""Values of any type that a client's package declares, as the JSON that the client would send.

Clients describe their requests and messages by TypedDicts, pydantic models and dataclasses. `Walker`
walks such a type and draws a value for it. hypothesis draws such values too (`from_type`), but it knows
no JSON: its `Iterable` is no list.
"""

import base64
import collections.abc as abc
import dataclasses
import enum
import types
import typing
from datetime import datetime
from functools import cache
from random import Random
from typing import Any, Literal, Union, cast

import typing_extensions
from pydantic import BaseModel

DEEPEST = 7
"""Levels of objects in objects; below, only what a type needs is drawn."""
WORDS = ("hello", "What is the capital of France?", "ü", "你好", "😀", "a\nb", "", " ", "0", "null")
"""Ordinary texts, with those among them that programs mistake for something else."""
NUMBERS = (0, 1, 2, 3, 7, 16, 100, -1)
_WRAPPERS = (
    typing_extensions.Annotated,
    typing_extensions.Required,
    typing_extensions.NotRequired,
    typing_extensions.ReadOnly,
    typing.Final,
    typing.ClassVar,
)
_LISTS = (list, tuple, set, frozenset, abc.Iterable, abc.Sequence, abc.Collection, abc.MutableSequence)
_OBJECTS = (dict, abc.Mapping, abc.MutableMapping)


class Walker:
    """Draws values.

    Args:
        random: decides everything, so that the same seed gives the same values.
        share: how likely a field is drawn that a type does not need.
    """

    def __init__(self, random: Random, share: float = 0.3) -> None:
        self.random = random
        self.share = share

    def value(self, hint: Any, depth: int = 0) -> Any:
        """A value of a type, as JSON. What is no type that JSON knows becomes any JSON value."""
        hint = _bare(hint)
        if hint in _SCALARS:
            return _SCALARS[hint](self.random)
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin in (Union, types.UnionType):
            return self._one_of(arguments, depth)
        if origin in (Literal, typing_extensions.Literal):
            return _plain(self.random.choice(arguments))
        if (origin or hint) in _LISTS:
            count = 0 if depth >= DEEPEST else self.random.choice((0, 1, 1, 2, 3))
            return [self.value((*arguments, Any)[0], depth + 1) for _ in range(count)]
        if (origin or hint) in _OBJECTS:
            count = 0 if depth >= DEEPEST else self.random.choice((0, 1, 2))
            return {f"key{n}": self.value((*arguments, Any, Any)[1], depth + 1) for n in range(count)}
        if isinstance(hint, type) and (fields := fields_of(hint)) is not None:
            return self._object(fields, depth)
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            return _plain(self.random.choice(list(hint)))
        return self.json(depth)

    def json(self, depth: int = 0) -> Any:
        """Any JSON value."""
        kind = self.random.randrange(7 if depth < DEEPEST else 5)
        if kind < 5:
            return (None, True, self.random.choice(WORDS), self.random.choice(NUMBERS), 0.5)[kind]
        items = [self.json(depth + 1) for _ in range(self.random.randrange(3))]
        return items if kind == 5 else {f"key{n}": item for n, item in enumerate(items)}

    def _object(self, fields: dict[str, tuple[Any, bool]], depth: int) -> dict[str, Any]:
        share = 0 if depth >= DEEPEST else self.share
        return {
            name: self.value(hint, depth + 1)
            for name, (hint, is_needed) in fields.items()
            if is_needed or self.random.random() < share
        }

    def _one_of(self, hints: tuple[Any, ...], depth: int) -> Any:
        if depth >= DEEPEST:
            hints = tuple(h for h in hints if _bare(h) in _SCALARS) or hints
        return self.value(self.random.choice(hints), depth)


@cache
def fields_of(kind: type) -> dict[str, tuple[Any, bool]] | None:
    """The fields of a TypedDict, a pydantic model or a dataclass: each with its type and whether it has
    to be there. None for any other class."""
    if typing_extensions.is_typeddict(kind):
        hints = typing_extensions.get_type_hints(kind, include_extras=True)
        needed = cast("Any", kind).__required_keys__
        return {name: (hint, _is_needed(hint, name in needed)) for name, hint in hints.items()}
    if issubclass(kind, BaseModel):
        return {n: (field.annotation, field.is_required()) for n, field in kind.model_fields.items()}
    if dataclasses.is_dataclass(kind):
        hints = typing_extensions.get_type_hints(kind, include_extras=True)
        none = dataclasses.MISSING
        return {
            f.name: (hints[f.name], f.default is none and f.default_factory is none)
            for f in dataclasses.fields(kind)
            if f.init
        }
    return None


def _is_needed(hint: Any, otherwise: bool) -> bool:
    """Whether a TypedDict needs a field. Its own `__required_keys__` misses what stands in the type
    where the types are texts (`from __future__ import annotations`)."""
    while (origin := typing.get_origin(hint)) in _WRAPPERS:
        if origin in (typing_extensions.Required, typing_extensions.NotRequired):
            return origin is typing_extensions.Required
        hint = typing.get_args(hint)[0]
    return otherwise


def _bare(hint: Any) -> Any:
    """A type without what is said about it, and a name of a type as the type."""
    while True:
        if typing.get_origin(hint) in _WRAPPERS:
            hint = typing.get_args(hint)[0]
        elif isinstance(hint, typing_extensions.TypeAliasType):
            hint = hint.__value__
        elif isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        else:
            return hint


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _text(random: Random) -> str:
    return random.choice(WORDS)


_SCALARS: dict[Any, abc.Callable[[Random], Any]] = {
    str: _text,
    int: lambda random: random.choice(NUMBERS),
    float: lambda random: random.choice((0.0, 0.5, 1.0, 1, 0.9, -0.5)),
    bool: lambda random: random.random() < 0.5,
    None: lambda _: None,
    type(None): lambda _: None,
    bytes: lambda random: base64.b64encode(_text(random).encode()).decode(),
    datetime: lambda _: "2026-11-30T10:00:00Z",
}
"""How to draw a value of a type that is no object and no list."""
