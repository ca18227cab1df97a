"""What the documents take from the code, or say about the tree, is true."""

import re
from pathlib import Path

import pytest

from configs.load import load, parse, presets
from docs.generate import commands, documents, help_text
from docs.picture import draw

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks/README.md"])
PICTURES = sorted((ROOT / "docs" / "images").iterdir())
README = (ROOT / "README.md").read_text("utf-8")
README_LINES = 130
"""A newcomer reads README at one sitting; what is longer belongs on a page of its own."""
SOURCE_FOLDERS = ("actors", "cli", "cluster", "configs", "jobs", "serve_app")
SHORTEST_FRAGMENT = 7
"""A shorter piece of a message could be found anywhere in the code by chance."""


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_generated_document_is_what_the_code_says(path: Path) -> None:
    assert path.read_text("utf-8") == documents()[path], "run `make docs`"


@pytest.mark.parametrize("command", [[], *commands()], ids=" ".join)
def test_every_command_is_described(command: list[str]) -> None:
    assert help_text(command) in (ROOT / "docs" / "commands.md").read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text("utf-8"))
    broken = []
    for path, section in links:
        target = page.parent / path if path else page
        if not target.exists() or (section and section not in _anchors(target)):
            broken.append(f"{path}#{section}")
    assert broken == []


def _anchors(page: Path) -> set[str]:
    """The names under which GitHub links to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return set(map(_anchor, headings))


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_picture_loads_nothing_from_elsewhere(picture: Path) -> None:
    assert _loads(picture.read_text("utf-8")) == []


def test_a_new_picture_shows_the_terminal_and_loads_nothing() -> None:
    drawn = draw("\x1b[32mdone\x1b[0m\nwriting")
    assert "done</text>" in drawn
    assert "writing</text>" in drawn
    assert _loads(drawn) == []


def _loads(drawn: str) -> list[str]:
    names = drawn.replace('xmlns="http://www.w3.org/2000/svg"', "")
    return re.findall(r"https?:|@import|@font-face|<image|<script|href", names)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= README_LINES


def test_the_readmes_recipe_is_a_whole_one() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    recipe = parse(text, folder=ROOT, name="README.md")
    tiny = load("tiny_cpu")  # whose checksums are those of files that are there
    known = {source.sha256 for m in tiny.models.values() for source in getattr(m, "weights", ())}
    used = {source.sha256 for m in recipe.models.values() for source in getattr(m, "weights", ())}
    assert used == known


def test_every_preset_is_listed() -> None:
    page = (ROOT / "docs" / "presets.md").read_text("utf-8")
    listed = re.findall(r"^\| \[`(\w+)`\]\(\.\./configs/(\w+)\.yaml\)", page, re.MULTILINE)
    assert sorted(listed) == [(name, name) for name in presets()]


def test_the_readme_names_the_default_mixture_by_its_name() -> None:
    assert f'model="{load("tiny_cpu").name}"' in README


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "mistakes.md"], ids=lambda page: page.name
)
def test_the_commands_of_the_pages_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    called = re.findall(
        r"(?:^|&& |`)(?:\.venv/bin/)?slimmoa ((?:bench|keys) )?([a-z]+)", text, re.MULTILINE
    )
    known = {" ".join(command) for command in commands()} | {"bench", "keys"}
    assert {"".join(words) for words in called} <= known
    code = "\n".join(re.findall(r"```.*?```|`[^`]+`", text, re.DOTALL))
    targets = set(re.findall(r"(?:^|`)make ([a-z][\w-]*)", code, re.MULTILINE))
    rules = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert targets <= rules


def test_the_readmes_first_commands_are_there() -> None:
    assert "\nmake serve\n" in README
    assert '\n.venv/bin/slimmoa ask "' in README


def test_ci_runs_the_readmes_own_test_command() -> None:
    run = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    assert [line for line in run if line.startswith("make")] == ["make test"]
    assert "`make test`" in README


def test_the_index_of_benchmarks_lists_every_command() -> None:
    index = (ROOT / "benchmarks/README.md").read_text("utf-8")
    listed = set(re.findall(r"`benchmarks\.(\w+\.\w+)", index))
    files = (ROOT / "benchmarks").glob("*/*.py")
    commands = {
        f"{file.parent.name}.{file.stem}"
        for file in files
        if 'if __name__ == "__main__"' in file.read_text("utf-8")
    }
    of_others = {
        "faults.chaos_models",
        "speed.backends",
        "speed.handwritten",
        "real_cards.holder",
    }
    assert listed == commands - of_others


def test_headline_figures_stand_in_the_sections_that_they_link_to() -> None:
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    sections = {_anchor(part.split("\n", 1)[0]): part for part in page.split("\n## ")}
    rows = re.findall(r"^\| [^|]*\(#([\w-]+)\)[^|]*\|([^|]+)\|", page, re.MULTILINE)
    assert len(rows) == 10
    for section, figures in rows:
        numbers = re.findall(r"\d+(?:[.,]\d+)*", figures)
        assert [n for n in numbers if n not in sections[section]] == [], section


def test_the_tests_that_hold_a_promise_are_there() -> None:
    page = (ROOT / "SECURITY.md").read_text("utf-8")
    named = re.findall(r"`(?:tests/)?((?:unit|ray|e2e)/[\w/]+\.py)`", page)
    assert named
    assert [path for path in named if not (ROOT / "tests" / path).exists()] == []


def test_troubleshooting_quotes_messages_as_the_code_writes_them() -> None:
    """Messages stand in blocks marked `text`; words in capitals stand for what varies."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    quoted = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    lines = [line for block in quoted for line in block.splitlines()]
    assert len(lines) >= 20
    code = _messages()
    for line in lines:
        fragments = [f.strip(" '") for f in re.split(r"\b[A-Z][A-Z0-9_]*\b(?!_)", line)]
        checked = [f for f in fragments if len(f) >= SHORTEST_FRAGMENT]
        assert checked, f"too little of this message is fixed: {line}"
        assert [f for f in checked if f not in code] == [], line


def _messages() -> str:
    """The code with its string literals joined, and what f-strings fill in as a gap."""
    files = [f for folder in SOURCE_FOLDERS for f in (ROOT / folder).rglob("*.py")]
    code = "\n".join(f.read_text("utf-8") for f in files)
    joined = re.sub(r"\"\s*\n\s*f?\"", "", code)
    return re.sub(r"\{[^{}]*\}", "\0", joined)
