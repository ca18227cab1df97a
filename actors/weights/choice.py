"""Which files of a model's folder an engine reads. Pure: it decides on names.

A repository often has the same weights several times: in Mistral's or Meta's own format
(`consolidated*`, `original/`), for other runtimes (`metal/`, `onnx/`, `openvino/`), as pickles or as
GGUF. vLLM reads the safetensors beside config.json, and of these the ones that the index names
(vllm/model_executor/model_loader/weight_utils.py: filter_duplicate_safetensors_files).
"""

import json
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from cluster.plan.safetensors import INDEX, OTHER_FORMAT
from configs.errors import WeightsError

SINGLE = "model.safetensors"
"""The name of weights in one file, as transformers writes it."""
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
"""Files in these formats can run code when they are loaded."""
SMALL = (".json", ".txt", ".model", ".jinja", ".tiktoken")
"""Endings of the other files that engines read: configuration, tokenizer, chat template."""
SHARD = re.compile(r"-\d{5}-of-(\d{5})\.safetensors$")
"""Ends the name of a file that has one part of the weights, and has the number of parts."""


def index_files(text: str) -> frozenset[str]:
    """The names of the weights' files in the text of an index.

    Raises:
        WeightsError: the text is not an index.
    """
    try:
        return frozenset(str(name) for name in json.loads(text)["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{INDEX} is broken: {error!r}") from error


def weight_files(names: Collection[str], indexed: frozenset[str] | None) -> list[str]:
    """The files of weights among `names`, in order.

    Args:
        names: all files of the folder; those in folders below have a `/` in their names.
        indexed: the files that the index names; None without an index.

    Raises:
        WeightsError: there are no complete safetensors; the message says what there is.
    """
    if "config.json" not in names:
        raise WeightsError("there is no config.json")
    if indexed is not None:
        if absent := sorted(name for name in indexed if name not in names or "/" in name):
            raise WeightsError(f"{INDEX} names {absent[0]!r}, which is not beside it")
        return sorted(indexed)
    found = sorted(name for name in names if _is_weights(name))
    if SINGLE in found:
        return [SINGLE]
    if not found:
        raise WeightsError(_why_none(names))
    for name in found:
        if (part := SHARD.search(name)) and len(found) < int(part[1]):
            raise WeightsError(f"only {len(found)} of the {int(part[1])} files of weights are there")
    return found


def small_files(names: Iterable[str], *, code: bool) -> list[str]:
    """The files beside the weights that engines read, in order.

    Args:
        names: all files of the folder.
        code: whether the checkpoint's own Python code may run, and so is one of them.
    """
    endings = (*SMALL, ".py") if code else SMALL
    return sorted(
        name
        for name in names
        if name.endswith(endings) and not name.startswith(OTHER_FORMAT) and _is_beside(name)
    )


def weights_here(folder: Path) -> list[Path]:
    """The files of weights in a folder of this machine.

    Raises:
        WeightsError: the folder has no complete safetensors; the message says what it has.
        OSError: the folder cannot be read.
    """
    index = folder / INDEX
    indexed = index_files(index.read_text("utf-8")) if index.is_file() else None
    names = [path.name for path in folder.iterdir() if path.exists()]  # without links to nothing
    return [folder / name for name in weight_files(names, indexed)]


def _is_weights(name: str) -> bool:
    return "/" not in name and name.endswith(".safetensors") and not name.startswith(OTHER_FORMAT)


def _is_beside(name: str) -> bool:
    return "/" not in name or re.fullmatch(r"additional_chat_templates/[^/]+\.jinja", name) is not None


def _why_none(names: Collection[str]) -> str:
    if pickled := sorted(name for name in names if name.endswith(PICKLED) and "/" not in name):
        what = f"{pickled[0]!r} is a pickle, which can run code"
        return f"only safetensors are loaded, and there are none: {what}"
    if gguf := sorted(name for name in names if name.endswith(".gguf")):
        return f"there are no safetensors; {gguf[0]!r} is for the engine llamacpp"
    if other := sorted(name for name in names if name.startswith(OTHER_FORMAT)):
        return f"there are no safetensors but {other[0]!r}, which is in Mistral's own format"
    return "there are no safetensors"
