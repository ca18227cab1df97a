"""Which folders weights may be read from.

A recipe can name any path for its weights. The file is read as tensors and as nothing else, so its
content never reaches an answer or a message. An operator who takes recipes from strangers may still
want to hide which files exist. Then the variable SLIMMOA_WEIGHTS lists the allowed folders, separated
as in PATH. Symbolic links are followed before the check. The variable has to be set wherever replicas
run.
"""

import os
from pathlib import Path

from configs.errors import WeightsError

VARIABLE = "SLIMMOA_WEIGHTS"
"""The environment variable with the allowed folders. Unset or empty: every folder is allowed."""

NOT_ALLOWED = f"{VARIABLE} names the folders of weights here, and this is in none of them"


def is_allowed(path: Path) -> bool:
    """Whether weights may be read from `path`."""
    folders = [folder for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder]
    try:
        real = Path(os.path.realpath(path))
    except ValueError:  # a text with a zero byte is no path
        return False
    return not folders or any(real.is_relative_to(os.path.realpath(folder)) for folder in folders)


def require_allowed(path: Path) -> None:
    """Raise an error if `path` is outside of the allowed folders.

    Raises:
        WeightsError: SLIMMOA_WEIGHTS does not allow `path`.
    """
    if not is_allowed(path):
        raise WeightsError(NOT_ALLOWED)
