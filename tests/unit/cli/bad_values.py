"""Values that people give by mistake, and commands that would work with all other values as they
are."""

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.core import TyperArgument
from typer.main import get_command

from cli.main import app

EVERY_VALUE = "SLIMMOA_EVERY_BAD_VALUE"
"""Environment variable with which every parameter gets every value of its kind: four times as many."""
EACH = 3
"""How many values each parameter gets without it."""
HUGE = "9" * 30
WORDS = ("", "no-such", "-1", "x" * 5000, "\udcff\udcfe", "🦙/é", "[::1")
NUMBERS = ("", "x", "-1", HUGE, "nan", "1e400", "1.5")


@dataclass(frozen=True)
class Case:
    """One command line with one bad value in it."""

    words: tuple[str, ...]
    """The words after `slimmoa`."""

    def __str__(self) -> str:
        return " ".join(repr(word)[:60] for word in self.words)


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command of the tree, with the words that lead to it."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), get_command(app))]
    while waiting:
        path, command = waiting.pop()
        if hasattr(command, "commands"):
            waiting += [((*path, name), each) for name, each in sorted(command.commands.items())]
        else:
            yield path, command


def odd_files(folder: Path) -> list[str]:
    """Files that no command can use, by kind: missing, empty, binary, folders, devices and so on."""
    made = {
        "empty": b"",
        "binary.gguf": b"GGUF" + bytes(range(256)) * 4,
        "list.json": b"[1, 2]",
        "numbers.csv": b"a,b\n1\n,,,\n",
        "recipe.yaml": b"name: x\nmodels: []\n",
    }
    for name, content in made.items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir()
    (folder / "circle").symlink_to("circle")
    (folder / "folder" / "run.sqlite").write_bytes(b"no database at all, but long enough" * 40)
    found = [str(folder / name) for name in (*made, "folder", "circle")]
    return [*found, str(folder / "nowhere" / "x"), "/dev/full", "/proc/self/mem"]


def cases(path: tuple[str, ...], given: Mapping[str, list[str]], folder: Path) -> Iterator[Case]:
    """Command lines of one command: each of its parameters gets each bad value of its kind, and the
    others get the words of `given`.

    Args:
        path: the words that lead to the command.
        given: words for its parameters by the parameter's name.
        folder: where the odd files are made.
    """
    files = odd_files(folder)
    command = dict(commands())[path]
    yield Case((*path, "--no-such-option"))
    yield Case(path)
    for parameter in command.params:
        if parameter.name == "help" or getattr(parameter, "is_flag", False):
            continue
        is_number = parameter.type_descriptor.annotation in (int, float)
        option = [] if isinstance(parameter, TyperArgument) else [parameter.opts[0]]
        for value in _some(NUMBERS if is_number else (*WORDS, *files), (*path, parameter.name)):
            words = list(path)
            for other in command.params:
                words += [*option, value] if other is parameter else given.get(other.name, [])
            yield Case(tuple(words))


def _some(values: Sequence[str], place: Sequence[str]) -> list[str]:
    """Some of the values, others for each parameter, so that the test is fast; all of them if
    EVERY_VALUE is set."""
    if os.environ.get(EVERY_VALUE):
        return list(values)
    start = zlib.crc32(" ".join(place).encode())
    return [values[(start + 3 * n) % len(values)] for n in range(min(EACH, len(values)))]
