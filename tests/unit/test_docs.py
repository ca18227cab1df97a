"""What the documents take from the code, or say about the tree, is true."""

import re
from pathlib import Path

import pytest

from configs.load import load, presets
from docs.generate import commands, documents, help_text

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks/README.md"])
README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_generated_document_is_what_the_code_says(path: Path) -> None:
    assert path.read_text("utf-8") == documents()[path], "run `make docs`"


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_is_described(command: list[str]) -> None:
    assert help_text(command) in (ROOT / "docs" / "commands.md").read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_lists_every_preset() -> None:
    for name in presets():
        assert f"[`{name}`](configs/{name}.yaml)" in README


def test_the_readme_names_the_default_mixture_by_its_name() -> None:
    assert f'model="{load("tiny_cpu").name}"' in README


def test_the_commands_of_the_readme_exist() -> None:
    called = re.findall(
        r"(?:^|&& )(?:\.venv/bin/)?slimmoa ((?:bench|keys) )?(\w+)", README, re.MULTILINE
    )
    assert called
    known = {" ".join(command) for command in commands()}
    assert {"".join(words) for words in called} <= known
    targets = set(re.findall(r"^make (\w+)", README, re.MULTILINE))
    rules = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert targets == {"serve", "test"}
    assert targets <= rules


def test_ci_runs_the_readmes_own_test_command() -> None:
    run = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    assert [line for line in run if line.startswith("make")] == ["make test"]


def test_the_index_of_benchmarks_lists_every_command() -> None:
    index = (ROOT / "benchmarks/README.md").read_text("utf-8")
    listed = set(re.findall(r"`benchmarks\.(\w+\.\w+)", index))
    files = (ROOT / "benchmarks").glob("*/*.py")
    commands = {
        f"{file.parent.name}.{file.stem}"
        for file in files
        if 'if __name__ == "__main__"' in file.read_text("utf-8")
    }
    of_others = {"faults.chaos_models", "speed.backends", "real_cards.card_checks"}
    assert listed == commands - of_others
