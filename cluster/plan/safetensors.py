"""The tensors of a folder in the safetensors format: names and bytes. Only headers are read."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.plan.file_kind import SAFETENSORS, START_BYTES, foreign

INDEX = "model.safetensors.index.json"
"""The file that says which file holds which tensor, where a checkpoint has several files."""
OTHER_FORMAT = "consolidated"
"""Files whose names begin so hold the same weights once more, in Mistral's own format."""
LONGEST_HEADER = 100_000_000
"""The longest header in bytes that the safetensors package accepts (safetensors/src/tensor.rs,
MAX_HEADER_SIZE)."""


class NotSafetensors(ValueError):
    """A file is not in the safetensors format, is cut, or does not fit the index beside it."""


def folder_tensors(folder: Path) -> dict[str, int]:
    """Bytes of each tensor of the checkpoint in `folder`.

    The index decides which files belong to the checkpoint; without an index, all safetensors files in
    the folder itself do, except those in Mistral's own format.

    Raises:
        NotSafetensors: a file is cut, is none of this format, or lacks what the index says of it.
        OSError: a file cannot be read.
    """
    index = folder / INDEX
    if index.is_file():
        placed = _weight_map(index)
        sizes = {name: _named(folder, name) for name in sorted(set(placed.values()))}
        for tensor, file in placed.items():
            if tensor not in sizes[file]:
                raise NotSafetensors(f"{INDEX} says that {file!r} holds {tensor!r}, and it does not")
    else:
        files = sorted(folder.glob("*.safetensors"))
        own = [file for file in files if not file.name.startswith(OTHER_FORMAT)]
        if files and not own:
            raise NotSafetensors("its safetensors files are in Mistral's own format alone")
        if not own:
            raise NotSafetensors("there are no safetensors files")
        sizes = {file.name: tensor_sizes(file) for file in own}
    return {tensor: size for part in sizes.values() for tensor, size in part.items()}


def tensor_sizes(file: Path) -> dict[str, int]:
    """Bytes of each tensor of a safetensors file.

    Such a file begins with 8 bytes, the length of a JSON header that has the offsets of each tensor
    (github.com/huggingface/safetensors, "Format").

    Raises:
        NotSafetensors: the file is cut, or it is none of this format.
        OSError: the file cannot be read.
    """
    return {name: end - start for name, (start, end, _) in _entries(file).items()}


def tensor_shapes(file: Path) -> dict[str, tuple[tuple[int, ...], int]]:
    """The shape and the bytes of each tensor of a safetensors file; see `tensor_sizes`."""
    found = {}
    for name, (start, end, entry) in _entries(file).items():
        shape = entry.get("shape")
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise NotSafetensors(f"{file.name!r} has no shape for its tensor {name!r}: {shape!r}")
        found[name] = (tuple(shape), end - start)
    return found


def _entries(file: Path) -> dict[str, tuple[int, int, Mapping[str, Any]]]:
    """Where each tensor begins and ends, and its whole entry in the header."""
    total = file.stat().st_size
    with file.open("rb") as data:
        start = data.read(START_BYTES)
        if (what := foreign(start, total)) is not None and what != SAFETENSORS:
            raise NotSafetensors(f"{file.name!r} is no safetensors file: {what}")
        start = start[:8]
        data.seek(8)
        if len(start) < 8:
            raise NotSafetensors(f"{file.name!r} has {total} bytes and is no safetensors file")
        (length,) = struct.unpack("<Q", start)
        if length > LONGEST_HEADER:
            raise NotSafetensors(
                f"{file.name!r} has no safetensors header: its length would be {length}"
            )
        if 8 + length > total:
            raise NotSafetensors(
                f"{file.name!r} ends in its header: it has {total} of {8 + length} bytes"
            )
        header = _json_object(file.name, data.read(length))
    header.pop("__metadata__", None)
    ends = {name: _offsets(file.name, name, entry) for name, entry in header.items()}
    last = 8 + length + max((end for _, end in ends.values()), default=0)
    if last > total:
        raise NotSafetensors(f"{file.name!r} is not complete: it has {total} of {last} bytes")
    return {name: (*place, header[name]) for name, place in ends.items()}


def _named(folder: Path, name: str) -> dict[str, int]:
    """The tensors of a file that the index names."""
    if Path(name).name != name:
        raise NotSafetensors(f"{INDEX} names {name!r}, which is not the name of a file in the folder")
    if not (folder / name).is_file():
        raise NotSafetensors(f"{INDEX} names {name!r}, and there is no such file")
    return tensor_sizes(folder / name)


def _weight_map(index: Path) -> dict[str, str]:
    """Which file holds each tensor, by the index."""
    placed = _json_object(INDEX, index.read_bytes()).get("weight_map")
    if not isinstance(placed, Mapping) or not placed:
        raise NotSafetensors(f"{INDEX} has no 'weight_map' that says which file holds which tensor")
    if not all(isinstance(file, str) for file in placed.values()):
        raise NotSafetensors(f"the 'weight_map' of {INDEX} has values that are no names of files")
    return dict(placed)


def _json_object(name: str, text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotSafetensors(f"{name!r} has a header that is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise NotSafetensors(f"{name!r} has a header that is not a JSON object")
    return found


def _offsets(file: str, tensor: str, entry: Any) -> tuple[int, int]:
    """Where a tensor begins and ends, counted from the end of the header."""
    offsets = entry.get("data_offsets") if isinstance(entry, Mapping) else None
    match offsets:
        case [int(start), int(end)] if 0 <= start <= end and not isinstance(start, bool):
            return start, end
    raise NotSafetensors(f"{file!r} has no place for its tensor {tensor!r}: {offsets!r}")
