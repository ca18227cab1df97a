"""GGUF files whose shape is bundled with the project, so that a plan does not need the files.

`configs/gguf_shapes.json` has the parts of their headers that decide memory and speed. The files are
known by their SHA-256, so it does not matter where a recipe takes a file from.
"""

import json
from functools import cache
from importlib import resources
from typing import Any

from cluster.plan.checkpoint_facts import Checkpoint
from cluster.plan.gguf import Header, Tensor
from cluster.plan.gguf_shape import gguf_checkpoint
from configs.weights import HubFile, WeightsSource

LAYERS = "layers"
"""How the names of the tensors of all layers together begin."""


@cache
def gguf_shapes() -> dict[str, dict[str, Any]]:
    """The bundled shapes by the SHA-256 of the file: a part of its header, its bytes, one source."""
    text = resources.files("configs").joinpath("gguf_shapes.json").read_text("utf-8")
    return {sha: shape for sha, shape in json.loads(text).items() if not sha.startswith("_")}


def from_gguf_shapes(source: WeightsSource) -> Checkpoint | None:
    """The checkpoint of the file that a recipe's source gives; None if no shape of it is bundled.

    A source without a checksum is known by its repository and file name, at the main revision or at the
    one that the shape was taken from: other revisions may hold other bytes.
    """
    shape = _find(source)
    if shape is None:
        return None
    metadata = shape["metadata"]
    layers = metadata[f"{metadata['general.architecture']}.block_count"]
    tensors = (
        each for name, dims, size in shape["tensors"] for each in _tensors(name, dims, size, layers)
    )
    return gguf_checkpoint(Header(metadata, tuple(tensors)))


def bundled_file_bytes(source: WeightsSource) -> int | None:
    """Bytes of the file that a recipe's source gives; None if no shape of it is bundled."""
    shape = _find(source)
    return None if shape is None else int(shape["file_bytes"])


def _tensors(name: str, dims: list[int], size: int, layers: int) -> list[Tensor]:
    """The tensor itself; or, for those of all layers together, an equal part for each layer."""
    if not name.startswith(LAYERS):
        return [Tensor(name, tuple(dims), size)]
    rest = f"ffn{name.removeprefix(LAYERS)}"
    return [
        Tensor(f"blk.{n}.{rest}", (_part(dims[0], n, layers),), _part(size, n, layers))
        for n in range(layers)
    ]


def _part(whole: int, number: int, parts: int) -> int:
    """The size of a part, so that all parts add up to the whole."""
    return whole * (number + 1) // parts - whole * number // parts


def _find(source: WeightsSource) -> dict[str, Any] | None:
    if source.sha256 is not None:
        return gguf_shapes().get(source.sha256)
    if not isinstance(source, HubFile):
        return None
    for shape in gguf_shapes().values():
        if shape["file"] == f"{source.hub}/{source.file}":
            return shape if source.revision in ("main", shape["revision"]) else None
    return None
