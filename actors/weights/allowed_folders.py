"""Where weights may lie, if whoever runs this machine has said so.

A recipe names its weights by any path, which are then read as tensors and as nothing else: whatever the
file holds, it comes into no answer and no message. Where recipes come from people who should not even
learn what is there, the variable SLIMMOA_WEIGHTS names the folders (separated as in PATH) that they may
name; symbolic links are followed first. It has to be set wherever replicas run.
"""

import os
from pathlib import Path

from configs.errors import WeightsError

VARIABLE = "SLIMMOA_WEIGHTS"


def is_allowed(path: Path) -> bool:
    """Whether weights may be taken from `path`."""
    folders = [folder for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder]
    try:
        real = Path(os.path.realpath(path))
    except ValueError:  # a text with a zero byte is no path
        return False
    return not folders or any(real.is_relative_to(os.path.realpath(folder)) for folder in folders)


def require_allowed(path: Path) -> None:
    """Refuse a path that is not.

    Raises:
        WeightsError: weights may not be taken from there.
    """
    if not is_allowed(path):
        raise WeightsError(f"{VARIABLE} names the folders of weights here, and this is in none of them")
