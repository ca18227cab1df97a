"""Split GGUF files whose parts do not lie side by side under their own names: links give them these.

llama.cpp is given the first part, and looks for the others beside it by their names
(`llama_split_path` in its include/llama.h).
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from actors.weights.cache import cache_folder
from configs.weights import HubFile, WeightsSource

SUFFIX = ".parts"
"""Ends the name of a folder with links to the parts of one file."""


def first_part(source: WeightsSource, files: Sequence[Path]) -> Path | None:
    """The path by which an engine reads a file whose pieces are all here; None if a link is missing.

    Args:
        source: where the file comes from.
        files: the files of its pieces, in order.
    """
    links = _links(source, files)
    return links[0] if all(link.exists() for link in links) else None


def link_parts(source: WeightsSource, files: Sequence[Path]) -> Path:
    """What `first_part` returns, after the links that are missing have been made.

    Raises:
        OSError: a link cannot be made.
    """
    for link, file in zip(_links(source, files), files, strict=True):
        if link != file and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            fresh = link.with_name(f"{link.name}.{os.getpid()}")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(file.absolute())
            os.replace(fresh, link)
    return _links(source, files)[0]


def _links(source: WeightsSource, files: Sequence[Path]) -> list[Path]:
    """The paths by which an engine reads the pieces. Parts that lie side by side under their own names,
    as in a folder of this machine or a snapshot of the Hub, need no links."""
    if not isinstance(source, HubFile) or len(files) == 1:
        return list(files)
    names = [Path(piece.file).name for piece in source.pieces]
    if [file.name for file in files] == names and len({file.parent for file in files}) == 1:
        return list(files)
    text = "\n".join(str(file) for file in files)
    folder = cache_folder() / (hashlib.sha256(text.encode()).hexdigest()[:32] + SUFFIX)
    return [folder / name for name in names]
