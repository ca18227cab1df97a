"""The keys of a model's configuration, each read with a check of its value.

A file on the Hub may hold anything. So no value goes into a sum before it was found to be what its key
stands for; `BadConfig` names the key and the value otherwise.
"""

import reprlib
from collections.abc import Mapping
from typing import Any

MOST = 2**31 - 1
"""The largest number that a key may have. No dimension of a model comes near."""
MOST_LAYERS = 10_000
"""The largest number of layers, which bounds the lists that are made of them."""


class BadConfig(ValueError):
    """A key is missing, or its value cannot be right. The message names both."""


def bad(key: str, value: Any, allowed: str) -> BadConfig:
    """The error for a value that the key cannot have."""
    return BadConfig(f"{key!r} is {reprlib.repr(value)}, and must be {allowed}")


def whole(key: str, value: Any, least: int = 1, most: int = MOST) -> int:
    """`value` as a whole number.

    Raises:
        BadConfig: it is none, or it lies outside of `least` to `most`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise bad(key, value, f"a whole number from {least} to {most}")
    return value


class Keys:
    """The keys of one part of a configuration. Class defaults answer for the keys that it leaves out.

    Most methods take several names, for families of models name the same thing differently. The first
    name that the configuration has a value for decides. A key that is null has no value, and neither
    has it a default: the file has overruled the default.

    Args:
        values: the part of the configuration.
        defaults: the defaults of the configuration's class in transformers.

    Raises:
        BadConfig: the part is no JSON object.
    """

    def __init__(self, values: Any, defaults: Mapping[str, Any] | None = None, name: str = "") -> None:
        if not isinstance(values, Mapping):
            raise bad(name or "config.json", values, "a JSON object")
        self.values = values
        self.defaults = defaults or {}

    def find(self, *names: str) -> tuple[str, Any]:
        """The name that has a value, and the value; the first name and None if none has."""
        for name in names:
            if self.values.get(name) is not None:
                return name, self.values[name]
        if not any(name in self.values for name in names):
            for name in names:
                if self.defaults.get(name) is not None:
                    return name, self.defaults[name]
        return names[0], None

    def has(self, *names: str) -> bool:
        """Whether one of the names has a value."""
        return self.find(*names)[1] is not None

    def number(self, *names: str, least: int = 1, most: int = MOST) -> int:
        """The whole number under the names.

        Raises:
            BadConfig: there is none, or it lies outside of `least` to `most`.
        """
        name, value = self.find(*names)
        if value is None:
            others = f" (nor {', '.join(names[1:])})" if names[1:] else ""
            raise BadConfig(f"it has no {name!r}{others}")
        return whole(name, value, least, most)

    def number_or(self, default: int, *names: str, least: int = 1) -> int:
        """The whole number under the names; `default` if there is none.

        Raises:
            BadConfig: the value is no whole number of `least` or more.
        """
        name, value = self.find(*names)
        return default if value is None else whole(name, value, least)

    def own_number(self, *names: str, most: int = MOST) -> int:
        """Like `number`, but class defaults do not answer."""
        return Keys(self.values).number(*names, most=most)

    def flag(self, *names: str, default: bool = False) -> bool:
        """The truth value under the names; `default` if there is none.

        Raises:
            BadConfig: the value is neither true nor false.
        """
        name, value = self.find(*names)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise bad(name, value, "true or false")
        return value

    def text(self, *names: str) -> str:
        """The text under the names; empty if there is none.

        Raises:
            BadConfig: the value is no text.
        """
        name, value = self.find(*names)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise bad(name, value, "a text")
        return value

    def items(self, *names: str) -> list[Any] | None:
        """The list under the names; None if there is none. A text counts as the list of its letters.

        Raises:
            BadConfig: the value is no list, or it has more items than a model has layers.
        """
        name, value = self.find(*names)
        if value is None:
            return None
        if not isinstance(value, list | str) or len(value) > MOST_LAYERS:
            raise bad(name, value, f"a list of at most {MOST_LAYERS} items")
        return list(value)

    def numbers(self, *names: str) -> list[int] | None:
        """The list of whole numbers of 0 or more under the names; None if there is none.

        Raises:
            BadConfig: the value is no such list.
        """
        name, found = self.find(*names)[0], self.items(*names)
        return None if found is None else [whole(name, value, least=0) for value in found]

    def part(self, *names: str) -> "Keys | None":
        """The JSON object under the names, without defaults; None if there is none.

        Raises:
            BadConfig: the value is no object.
        """
        name, value = self.find(*names)
        return None if value is None else Keys(value, name=name)
