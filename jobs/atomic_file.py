"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def write_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write into. When the block ends without an error, the file replaces `path`.

    Readers see the earlier file, if any, or the whole new one, also after a crash or a power cut. If
    the block raises, the earlier file stays. A link stays a link: the file behind it is replaced. What
    is no file, such as a pipe or /dev/null, is written as it is and never replaced.

    Raises:
        OSError: the file cannot be written or moved.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        with path.open("wb") as device:
            yield device
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
