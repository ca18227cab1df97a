"""What is printed to a hundred mistakes: one or two lines that name what is wrong, in people's
words."""

import re
import socket
from pathlib import Path

import pytest

from tests.unit.cli.mistakes import ALL, rows
from tests.unit.cli.test_no_traceback import PYTHONS

PAGE = Path(__file__).parents[3] / "docs" / "mistakes.md"


def _no_network(*_: object, **__: object) -> list[object]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_a_hundred_mistakes_are_told_in_peoples_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLIMMOA_CACHE", str(tmp_path))
    for name in ("SLIMMOA_URL", "SLIMMOA_CARDS", "SLIMMOA_API_KEY", "SLIMMOA_API_KEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", _no_network)
    faults, count = [], 0
    for _, mistake, code, text in rows(tmp_path):
        count += 1
        warned = code == 0 and "warning: " in text
        if not (warned or code in (1, 2)) or len(text) < 20 or PYTHONS.search(text):
            faults.append((mistake.what, code, text[:300]))
    assert faults == []
    assert count >= 100


def test_the_page_has_all_of_them() -> None:
    """`python -m tests.unit.cli.mistakes > docs/mistakes.md` writes the page anew."""
    page = PAGE.read_text("utf-8")
    shown = re.findall(r"^\| \d+ \| (.*?)(?:: `slimmoa .*?)? \| [012] \|", page, re.MULTILINE)
    assert shown == [mistake.what for mistakes in ALL.values() for mistake in mistakes]
