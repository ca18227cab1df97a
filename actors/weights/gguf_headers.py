"""What a plan reads of a GGUF file at the Hub: its header, which is some megabytes of many gigabytes.

It is kept on this machine, so that the next plan needs no network.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # their documented place
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from actors.weights.cache import cache_root
from actors.weights.hub import HUB_PROBE_S, LIST_S, explained, first_answer
from actors.weights.hub_files import hub_file_here
from cluster.plan.checkpoint import Checkpoint, UnknownCheckpoint
from cluster.plan.config_keys import BadConfig
from cluster.plan.gguf import Header, NotGguf, Tensor, parse_header, read_header
from cluster.plan.gguf_shape import gguf_checkpoint
from configs.errors import WeightsError
from configs.weights import HubFile, WeightsSource

GGUF_TEMPLATE = "tokenizer.chat_template"
"""The key of a file's chat template."""
STARTS = (8 << 20, 32 << 20, 128 << 20)
"""Bytes from the start of a file that are fetched, one after the other, until the header is in them. A
vocabulary of 250,000 tokens takes about 10 MB."""


def gguf_known(sources: Sequence[WeightsSource]) -> Checkpoint | None:
    """The checkpoint in a file of the Hub by a header that an earlier plan has fetched, or None.

    Args:
        sources: where the file comes from. Nobody is asked.

    Raises:
        UnknownCheckpoint: the kept header cannot be understood; the message names the key.
    """
    found = ((source, _kept_whole(source)) for source in sources if isinstance(source, HubFile))
    known = next(((source, header) for source, header in found if header is not None), None)
    return None if known is None else _checkpoint(*known)


def known_header(sources: Sequence[WeightsSource]) -> Header | None:
    """The header of a file of the Hub that an earlier plan has fetched, or None."""
    found = (_kept_whole(source) for source in sources if isinstance(source, HubFile))
    return next((header for header in found if header is not None), None)


def _kept_whole(source: HubFile) -> Header | None:
    headers = [_kept(piece) for piece in source.pieces]
    whole = [header for header in headers if header is not None]
    return _joined(whole) if len(whole) == len(headers) else None


def fetch_gguf(source: HubFile) -> Checkpoint:
    """Ask the Hub for the header of a file, and read the checkpoint in it.

    Raises:
        WeightsError: the Hub cannot be reached or refuses, or the file is not GGUF.
        UnknownCheckpoint: the header cannot be understood; the message names the key.
    """
    return _checkpoint(source, fetch_header(source))


def fetch_header(source: HubFile) -> Header:
    """The header of a file, or of all parts of a split file as one. What is not kept on this machine is
    asked of the Hub.

    Raises:
        WeightsError: the Hub cannot be reached or refuses, or the file is not GGUF.
    """
    return _joined([_header_of_piece(piece) for piece in source.pieces])


def _joined(headers: Sequence[Header]) -> Header:
    """The header of a whole file by those of its parts. The first part has the metadata."""
    return Header(headers[0].metadata, tuple(t for header in headers for t in header.tensors))


def _header_of_piece(source: HubFile) -> Header:
    if (kept := _kept(source)) is not None:
        return kept
    if (file := hub_file_here(source)) is not None:
        try:
            return read_header(file)
        except (NotGguf, OSError) as error:
            raise WeightsError(f"{file}: {error}") from error
    url = hf_hub_url(source.hub, source.file, revision=source.revision)
    found = first_answer(source, lambda: get_hf_file_metadata(url, timeout=HUB_PROBE_S))
    size = found.size or 0
    cause = "the Hub does not tell its size"
    for count in STARTS if size else ():
        wanted = min(count, size)
        start = explained(source, partial(_first_bytes, url, wanted))
        try:
            header = parse_header(start, size)
        except NotGguf as error:
            cause = str(error)
            if start[:4] != b"GGUF" or wanted == size:
                break
        else:
            _keep(source, header)
            return header
    raise WeightsError(f"{source.hub}/{source.file} cannot be understood: {cause}")


def _first_bytes(url: str, count: int) -> bytes:
    headers = build_hf_headers() | {"range": f"bytes=0-{count - 1}"}
    start = bytearray()
    with get_session().stream("GET", url, headers=headers, timeout=LIST_S) as response:
        hf_raise_for_status(response)
        for block in response.iter_bytes():  # a server that ignores the range sends the whole file
            start += block
            if len(start) >= count:
                break
    return bytes(start[:count])


def _checkpoint(source: HubFile, header: Header) -> Checkpoint:
    try:
        return gguf_checkpoint(header)
    except (BadConfig, ValueError) as error:
        raise UnknownCheckpoint(f"cannot understand {source.hub}/{source.file}: {error}") from error


def _file(source: HubFile) -> Path:
    name = quote(f"{source.hub}@{source.revision}/{source.file}", safe="")
    return cache_root() / "checkpoints" / f"{name}.header.json"


def _kept(source: HubFile) -> Header | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        document = json.loads(_file(source).read_text("utf-8"))
        tensors = tuple(Tensor(name, tuple(shape), size) for name, shape, size in document["tensors"])
        metadata: dict[str, Any] = document["metadata"]
        return Header(metadata, tensors)
    return None


def _keep(source: HubFile, header: Header) -> None:
    tensors = [[tensor.name, tensor.shape, tensor.stored_bytes] for tensor in header.tensors]
    file = _file(source)
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    with suppress(OSError):  # a disk that is full costs the next plan some requests
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps({"metadata": header.metadata, "tensors": tensors}), "utf-8")
        os.replace(fresh, file)
