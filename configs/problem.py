"""One thing that is wrong with a text that a person has written, and where."""

from dataclasses import dataclass

Where = tuple[str | int, ...]
"""The path to a setting: keys of mappings and numbers of items, from 0."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a recipe."""

    where: Where
    """The setting at fault; empty for the whole file."""
    message: str
    line: int | None = None
    """In the file, from 1; None where it is not known."""

    def __str__(self) -> str:
        path = ".".join(map(str, self.where))
        return f"{path}: {self.message}" if path else self.message
