"""The parts of hand-written pages that come from the tree: the list of files, and source files."""

import re
from pathlib import Path

from docs.tree import ROOT, tree

FILE = re.compile(r"(<!-- file: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
TREE = re.compile(r"(<!-- tree -->\n).*?(<!-- end -->)", re.DOTALL)
PAGES = (ROOT / "docs" / "architecture.md", ROOT / "docs" / "engines.md")


def marked_pages() -> dict[Path, str]:
    """Each page with marks, and what it has to contain."""
    return {page: _filled(page.read_text("utf-8")) for page in PAGES}


def _filled(text: str) -> str:
    text = TREE.sub(lambda mark: f"{mark[1]}```text\n{tree()}```\n{mark[2]}", text)
    return FILE.sub(lambda mark: f"{mark[1]}```python\n{_source(mark[2])}```\n{mark[3]}", text)


def _source(path: str) -> str:
    return (ROOT / path).read_text("utf-8")
