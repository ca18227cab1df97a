"""What a plan reads of a checkpoint that is at the Hub: its configuration and the headers of its weights.

They are kept in a folder that looks like the checkpoint's own, but whose files of safetensors end after
their headers. So a plan reads this folder as it reads any other, and no engine can load it. Of a
checkpoint with 40 GB this takes some requests and less than a megabyte.
"""

import json
import os
import shutil
import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from huggingface_hub import HfApi

from actors.weights.folders import FolderDownload, download_of, small_file
from actors.weights.hub import checkpoint_path, explained, saved_repository
from configs.weights import HubFolder

READ = ("config.json", "generation_config.json", "hf_quant_config.json", "model.safetensors.index.json")
"""The small files that a plan may read, where the repository has them."""
WORKERS = 8
"""How many headers are fetched side by side."""


def headers_here(source: HubFolder) -> Path | None:
    """The folder with the headers of a repository, if this machine has kept it. Fetches nothing."""
    repository = saved_repository(source)
    if repository is None:
        return None
    folder = checkpoint_path(source, repository.commit)
    return folder if (folder / "config.json").is_file() else None


def fetch_headers(source: HubFolder) -> Path:
    """Fetch the headers of a repository's weights and what else a plan reads; return their folder.

    Raises:
        WeightsError: the Hub cannot be reached or refuses, or the repository has no safetensors.
    """
    found = download_of(source)
    folder = checkpoint_path(source, found.repository.commit)
    if (folder / "config.json").is_file():
        return folder
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    partial.mkdir(parents=True, exist_ok=True)
    try:
        for name in found.repository.files.keys() & set(READ):
            shutil.copyfile(small_file(source, found.repository, name), partial / name)
        _write_headers(found, partial)
        with suppress(OSError):  # another process may have been faster
            os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write_headers(found: FolderDownload, folder: Path) -> None:
    api, source, commit = HfApi(), found.source, found.repository.commit

    def fetch(name: str) -> bytes:
        tensors = api.parse_safetensors_file_metadata(source.hub, name, revision=commit).tensors
        header = {
            tensor: {key: facts[key] for key in ("dtype", "shape", "data_offsets")}
            for tensor, facts in ((tensor, asdict(info)) for tensor, info in tensors.items())
        }
        text = json.dumps(header, separators=(",", ":")).encode()
        return struct.pack("<Q", len(text)) + text

    with ThreadPoolExecutor(WORKERS) as pool:
        headers: Iterable[bytes] = explained(source, lambda: list(pool.map(fetch, found.weights)))
    for name, header in zip(found.weights, headers, strict=True):
        (folder / name).write_bytes(header)
