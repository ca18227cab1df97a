"""The folders on this machine that keep what was fetched."""

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_root() -> Path:
    """The folder of all that SlimMoA keeps: $SLIMMOA_CACHE, or below the user's cache folder."""
    folder = os.environ.get("SLIMMOA_CACHE")
    return Path(folder) if folder else user_cache_path("slimmoa")


def cache_folder() -> Path:
    """The folder of all fetched files of weights."""
    return cache_root() / "weights"
