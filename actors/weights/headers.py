"""What a plan reads of a checkpoint at the Hub: its configuration, and the headers of its weights.

Of a checkpoint with 40 GB this takes some requests and a few megabytes. It is kept on this machine, so
that the next plan needs no network.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from actors.weights.hub import checkpoint_path, explained, saved_repository
from actors.weights.repository import FolderDownload, download_of, small_file
from cluster.plan.checkpoint import MODULES, Checkpoint, from_metadata
from configs.errors import WeightsError
from configs.weights import HubFolder

CONFIG = "config.json"
QUANTIZATION = "hf_quant_config.json"
"""Where some checkpoints say how they are quantized."""
WORKERS = 8
"""How many headers are fetched side by side."""


def headers_here(source: HubFolder) -> Checkpoint | None:
    """The checkpoint of a repository by what an earlier plan has fetched, or None. Fetches nothing.

    Raises:
        UnknownCheckpoint: the checkpoint cannot be understood; the message names the key.
    """
    repository = saved_repository(source)
    if repository is None:
        return None
    with suppress(OSError, ValueError):
        facts = json.loads(_file(source, repository.commit).read_text("utf-8"))
        if isinstance(facts, dict) and facts.keys() == {"config", "quantization", "modules", "tensors"}:
            return _checkpoint(source, facts)
    return None


def fetch_headers(source: HubFolder) -> Checkpoint:
    """Ask the Hub for the headers of a repository's weights and for what else a plan reads.

    Raises:
        WeightsError: the Hub cannot be reached or refuses, or the repository has no safetensors.
        UnknownCheckpoint: the checkpoint cannot be understood; the message names the key.
    """
    found = download_of(source)
    facts = {
        "config": _json_file(found, CONFIG),
        "quantization": _json_file(found, QUANTIZATION),
        "modules": _json_file(found, MODULES),
        "tensors": _tensor_bytes(found),
    }
    file = _file(source, found.repository.commit)
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    with suppress(OSError):  # a disk that is full costs the next plan some requests
        partial.write_text(json.dumps(facts, separators=(",", ":")), "utf-8")
        os.replace(partial, file)
    return _checkpoint(source, facts)


def _checkpoint(source: HubFolder, facts: dict[str, Any]) -> Checkpoint:
    beside = facts["quantization"], facts["modules"]
    return from_metadata(facts["config"], facts["tensors"], *beside, name=source.hub)


def _file(source: HubFolder, commit: str) -> Path:
    path = checkpoint_path(source, commit)
    return path.with_name(f"{path.name}.headers.json")


def _json_file(found: FolderDownload, name: str) -> Any:
    """The content of a small file; None if the repository does not have it."""
    if name not in found.repository.files:
        return None
    try:
        return json.loads(small_file(found.source, found.repository, name).read_text("utf-8"))
    except ValueError as error:
        raise WeightsError(f"{name} is not JSON: {error}") from error


def _tensor_bytes(found: FolderDownload) -> dict[str, int]:
    """Bytes of each tensor of all files of weights."""
    api, source, commit = HfApi(), found.source, found.repository.commit

    def fetch(name: str) -> dict[str, int]:
        tensors = api.parse_safetensors_file_metadata(source.hub, name, revision=commit).tensors
        return {t: info.data_offsets[1] - info.data_offsets[0] for t, info in tensors.items()}

    with ThreadPoolExecutor(WORKERS) as pool:
        parts = explained(source, lambda: list(pool.map(fetch, found.weights)))
    return {tensor: size for part in parts for tensor, size in part.items()}
