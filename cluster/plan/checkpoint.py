"""Reads facts about a set of weights from files, from what the Hub tells, or from a bundled shape.

They are read from the headers of real files (config.json with safetensors, or GGUF), or from
`configs/shapes.json` for the public checkpoints that the presets name. Weights are never loaded.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from cluster.plan.checkpoint_facts import Attention, Checkpoint
from cluster.plan.config_keys import BadConfig
from cluster.plan.config_kind import why_no_chat
from cluster.plan.config_shape import config_checkpoint
from cluster.plan.file_kind import START_BYTES, foreign
from cluster.plan.gguf import NotGguf, read_whole_header
from cluster.plan.gguf_shape import gguf_checkpoint
from cluster.plan.safetensors import folder_tensors
from configs.errors import UserError

__all__ = [
    "Attention",
    "Checkpoint",
    "UnknownCheckpoint",
    "from_config",
    "from_folder",
    "from_gguf",
    "from_metadata",
    "from_shapes",
    "scripted_checkpoint",
    "shapes",
]

CONFIG = "config.json"
"""The file in which a checkpoint tells its shape."""
QUANT_CONFIG = "hf_quant_config.json"
"""The file in which checkpoints of modelopt tell how they are quantized."""
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json")
"""Files of a tokenizer, which git-lfs keeps elsewhere as it does weights."""
MODULES = "modules.json"
"""The file in which a model of embeddings tells its parts."""
LONGEST_JSON = 64 * 2**20
"""Bytes of the longest configuration that is read. Those on the Hub have less than 1 MB."""
OUTPUTS = ("lm_head", "embed_out", "output_layer.weight")
"""Parts of the names of tensors of an output layer."""
LOOKUPS = ("embed_tokens", "backbone.embeddings.", "transformer.wte.", "word_embeddings.", "embed_in.")
"""Parts of the names of input embeddings."""


class UnknownCheckpoint(UserError):
    """A checkpoint's files cannot be understood, or it has neither files here nor a bundled shape."""


def from_folder(folder: Path) -> Checkpoint:
    """Read config.json and the headers of the safetensors files beside it.

    Raises:
        UnknownCheckpoint: a file is missing or broken, or what config.json says cannot be right.
    """
    try:
        config = _read_json(folder / CONFIG)
        beside = _read_json(folder / QUANT_CONFIG) if (folder / QUANT_CONFIG).is_file() else None
        modules = _read_json(folder / MODULES) if (folder / MODULES).is_file() else None
        tensors = folder_tensors(folder)
        for name in TOKENIZERS:
            if (file := folder / name).is_file():
                with file.open("rb") as data:
                    _require_no_stand_in(name, data.read(START_BYTES), file.stat().st_size)
    except (OSError, ValueError, RecursionError) as error:
        raise UnknownCheckpoint(f"cannot understand the model in {folder.name!r}: {error}") from error
    return from_metadata(config, tensors, beside, modules, name=folder.name)


def from_metadata(
    config: Any,
    tensors: Mapping[str, int],
    quant_config: Any = None,
    modules: Any = None,
    *,
    name: str = CONFIG,
) -> Checkpoint:
    """Make a checkpoint from a config.json and the bytes of each tensor, without a folder.

    Args:
        config: the parsed config.json.
        tensors: bytes of each tensor by its name, as the headers of the safetensors files tell.
        quant_config: the parsed hf_quant_config.json; None if there is none.
        modules: the parsed modules.json; None if there is none.
        name: the model's name, for errors.

    Raises:
        UnknownCheckpoint: there are no tensors, a key is missing that every language model has, or a
            value cannot be right.
    """
    lookup = 0
    if any(part in tensor for tensor in tensors for part in OUTPUTS):
        lookup = sum(
            size for tensor, size in tensors.items() if any(part in tensor for part in LOOKUPS)
        )
    try:
        if sum(tensors.values()) <= 0:
            raise BadConfig("its tensors have no bytes")
        if (why := why_no_chat(config, modules)) is not None:
            raise BadConfig(why)
        return config_checkpoint(
            config, sum(tensors.values()), lookup, quant_config, tuple(tensors.values())
        )
    except BadConfig as error:
        raise UnknownCheckpoint(f"cannot understand the model in {name!r}: {error}") from error


def from_config(config: Any, weight_bytes: int, lookup_bytes: int) -> Checkpoint:
    """Make a checkpoint from a Hugging Face config.json, or from its text part if it has parts.

    Args:
        config: the parsed file.
        weight_bytes: bytes of all tensors.
        lookup_bytes: see `Checkpoint.lookup_bytes`.

    Raises:
        UnknownCheckpoint: a key is missing that every language model has, or a value cannot be right.
    """
    try:
        return config_checkpoint(config, weight_bytes, lookup_bytes)
    except BadConfig as error:
        raise UnknownCheckpoint(f"cannot understand {CONFIG}: {error}") from error


def from_gguf(file: Path) -> Checkpoint:
    """Read the header of a GGUF file, or of all parts of a split one.

    Raises:
        UnknownCheckpoint: the file is not GGUF, a part is missing, or a key is missing that every
            language model has.
    """
    try:
        return gguf_checkpoint(read_whole_header(file))
    except (OSError, NotGguf, BadConfig, ValueError) as error:
        raise UnknownCheckpoint(f"cannot understand {file.name!r}: {error}") from error


@cache
def shapes() -> dict[str, dict[str, Any]]:
    """The bundled shapes by Hub repository: config keys, and the bytes of the weights."""
    text = resources.files("configs").joinpath("shapes.json").read_text("utf-8")
    return {name: shape for name, shape in json.loads(text).items() if not name.startswith("_")}


def from_shapes(hub: str) -> Checkpoint | None:
    """The checkpoint of a Hub repository by its bundled shape; None if no shape of it is bundled."""
    shape = shapes().get(hub)
    if shape is None:
        return None
    return from_config(shape["config"], shape["weight_bytes"], shape["lookup_bytes"])


def scripted_checkpoint(weight_bytes: int) -> Checkpoint:
    """A checkpoint for a scripted engine, which has no weights but is planned as if it had some."""
    return Checkpoint(weight_bytes, 1, 1, 1, 1, 1, (Attention(1, 1),))


def _read_json(file: Path) -> Any:
    """The parsed file.

    Raises:
        ValueError: the file is no JSON, or too long to be a configuration.
        OSError: the file cannot be read.
    """
    size = file.stat().st_size
    if size > LONGEST_JSON:
        raise ValueError(f"{file.name!r} has {size} bytes, too many for a configuration")
    text = file.read_bytes()
    _require_no_stand_in(file.name, text, size)
    return json.loads(text)


def _require_no_stand_in(name: str, start: bytes, size: int) -> None:
    """Raise ValueError if a small file is empty, a pointer of git-lfs, or a web page."""
    what = foreign(start[:START_BYTES], size)
    if what is not None and start.lstrip()[:1] not in (b"{", b"["):
        raise ValueError(f"{name!r}: {what}")
