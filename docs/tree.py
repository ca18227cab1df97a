"""The tree of the source files, one line per file, for docs/architecture.md."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("cli", "configs", "cluster", "actors", "serve_app", "jobs")
"""The folders of the project's own code."""
COLUMN = 26
"""Where the descriptions begin."""


def tree() -> str:
    """Every source file with the first sentence of its docstring, indented by folder."""
    return "\n".join(line for room in ROOMS for line in _folder(ROOT / room, 0)) + "\n"


def first_sentence(file: Path) -> str:
    """The first sentence of a module's docstring, without its full stop; empty if there is none."""
    text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[^.][.?])\s+(?=[A-Z`])", paragraph)[0].rstrip(".")


def _folder(folder: Path, depth: int) -> Iterator[str]:
    yield f"{'  ' * depth}{folder.name}/"
    files = sorted(folder.glob("*.py"), key=lambda file: (file.name != "__init__.py", file.name))
    for file in files:
        if description := first_sentence(file):
            yield f"{'  ' * (depth + 1) + file.name:<{COLUMN}}  {description}"
    for inner in sorted(folder.iterdir()):
        if any(inner.rglob("*.py")):
            yield from _folder(inner, depth + 1)
