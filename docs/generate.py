"""Writes what the documents take from the code: docs/api.md, docs/metrics.md, docs/commands.md,
docs/recipe.md, schema.json.

python -m docs.generate           write them (`make docs`)
python -m docs.generate --check   exit with 1 if one is not as it would be written
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer import Typer
from typer.testing import CliRunner

from cli.bench import bench
from cli.main import app, keys
from configs import schema
from docs.marked import marked_pages
from docs.pages.api import api_page
from docs.pages.metrics import metrics_page

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 96


def documents() -> dict[Path, str]:
    """Each generated document and what it has to contain."""
    return marked_pages() | {
        ROOT / "docs" / "api.md": api_page(),
        ROOT / "docs" / "metrics.md": metrics_page(),
        ROOT / "docs" / "commands.md": _commands(),
        ROOT / "docs" / "recipe.md": _recipe(),
        ROOT / "configs" / "schema.json": json.dumps(schema.json_schema(), indent=2) + "\n",
    }


def help_text(arguments: list[str]) -> str:
    """What `slimmoa ARGUMENTS --help` prints."""
    result = CliRunner().invoke(
        app, [*arguments, "--help"], prog_name="slimmoa", terminal_width=WIDTH, color=False
    )
    assert result.exit_code == 0, result.output
    return re.sub(r" +$", "", result.output, flags=re.MULTILINE)


def commands() -> list[list[str]]:
    """Each command, as the words after `slimmoa`."""
    return [*_names(app, []), *_names(keys, ["keys"]), *_names(bench, ["bench"])]


def _names(group: Typer, before: list[str]) -> list[list[str]]:
    found = [(c.name, c.callback) for c in group.registered_commands]
    return [[*before, name or str(call.__name__)] for name, call in found if call is not None]


def _commands() -> str:
    parts = [
        "# Every command\n\nGenerated from the commands' own help.\n",
        f"```text\n{help_text([])}```\n",
        *(f"## slimmoa {' '.join(c)}\n\n```text\n{help_text(c)}```\n" for c in commands()),
    ]
    return "\n".join(parts)


def _recipe() -> str:
    definitions = schema.json_schema()
    parts = [
        "# Every setting of a recipe\n",
        "Generated from `configs/schema.py`. Units stand in the names: `_s` seconds, `_bytes`, "
        "`_tokens`. `slimmoa check FILE` tells every mistake at once, with its line; editors that "
        "know JSON schema take `configs/schema.json`.\n",
        *_section("Recipe", definitions),
    ]
    for name, definition in definitions["$defs"].items():
        parts += _section(name, definition)
    return "\n".join(parts)


def _section(name: str, definition: dict[str, Any]) -> Iterator[str]:
    yield f"## {name}\n\n{definition.get('description', '')}\n"
    yield "| key | kind | default | what it is |\n| --- | --- | --- | --- |"
    required = definition.get("required", ())
    for key, value in definition["properties"].items():
        default = "required" if key in required else _default(value)
        what = value.get("description", "").replace("\n", " ").replace("|", "\\|")
        yield f"| `{key}` | {_kind(value)} | {default} | {what} |"
    yield ""


def _default(value: dict[str, Any]) -> str:
    default = value.get("default")
    if default in (None, "", {}):
        return ""
    return "see there" if isinstance(default, dict) else f"`{json.dumps(default)}`"


def _kind(value: dict[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "const" in value or "enum" in value:
        return " or ".join(f"`{v}`" for v in value.get("enum", [value.get("const")]))
    for several in ("anyOf", "oneOf"):
        if several in value:
            return " or ".join(_kind(v) for v in value[several] if v.get("type") != "null")
    if value.get("type") == "array":
        return f"list of {_kind(value['items'])}"
    if value.get("type") == "object":
        if "patternProperties" not in value:
            return "mapping"
        (inner,) = value["patternProperties"].values()  # names are held to a pattern
        return f"mapping of names to {_kind(inner)}"
    return str(value.get("type", "any")) + _bounds(value)


def _bounds(value: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return "".join(f" {sign} {value[name]:g}" for name, sign in signs.items() if name in value)


def main() -> int:
    """Write, or with --check compare."""
    check = sys.argv[1:] == ["--check"]
    stale = 0
    for path, text in documents().items():
        if path.exists() and path.read_text("utf-8") == text:
            continue
        stale += 1
        print(f"{path.relative_to(ROOT)} {'is stale; run make docs' if check else 'written'}")
        if not check:
            path.write_text(text, "utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
