"""Files of sets that tests write, and the public sets where they lie beside the project."""

import gzip
from pathlib import Path

import pytest

DATA = Path(__file__).parents[4] / "../shared/data"
"""The folder of the public sets. It is no part of the project and may be missing."""

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")


def write_file(folder: Path, name: str, text: str) -> Path:
    """Write a file, compressed if its name ends in .gz."""
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path
