"""What a GGUF file says about its tokens: which of them are control, and the chat template.

Format: docs/gguf.md of github.com/ggml-org/ggml. Types of tokens: `llama_token_type` in llama.cpp's
include/llama.h.
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from actors.text.control_tokens import is_control, written_by
from actors.text.known_marks import LLAMACPP_CONTROL

TOKENS = b"tokenizer.ggml.tokens"
TYPES = b"tokenizer.ggml.token_type"
TEMPLATE = b"tokenizer.chat_template"
CONTROL = (2, 3)
"""Types of tokens that are control: unknown and control."""
USER_DEFINED = 4
"""Type of tokens that are kept whole. llama.cpp reads them as tokens in every text."""
NORMAL = 1
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a scalar by the number of its type."""
STRING, ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The part of a GGUF file's header that is about text."""

    control: frozenset[str]
    """The control tokens."""
    hidden: frozenset[str]
    """Those of them that llama.cpp leaves out of answers, unless it is told to write them."""
    template: str
    """The chat template; "" without one."""


def read_vocabulary(path: Path) -> Vocabulary:
    """Read the control tokens and the chat template of a GGUF file.

    Raises:
        ValueError: the header is broken.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            found = _find(data)
        except (struct.error, KeyError, IndexError, OverflowError) as error:
            raise ValueError(f"{path.name!r} has a broken GGUF header: {error}") from error
        template = b""
        if TEMPLATE in found:
            (length,) = struct.unpack_from("<Q", data, found[TEMPLATE])
            template = data[found[TEMPLATE] + 8 : found[TEMPLATE] + 8 + length]
        text = template.decode("utf-8", "replace")
        marks = {mark.encode() for mark in LLAMACPP_CONTROL}
        control = written_by(text)
        hidden: set[str] = set()
        for kind, raw in _tokens(data, found):
            if kind == NORMAL and raw not in marks:
                continue
            token = raw.decode("utf-8", "replace")
            if kind in CONTROL or raw in marks:
                control.add(token)
                hidden.add(token)
            elif kind == USER_DEFINED and is_control(token, text):
                control.add(token)
        return Vocabulary(frozenset(control), frozenset(hidden), text)


def _find(data: mmap.mmap) -> dict[bytes, int]:
    """Where in the file the values of TOKENS, TYPES and TEMPLATE begin, behind their types."""
    (keys,) = struct.unpack_from("<Q", data, 16)
    at, found = 24, {}
    for _ in range(keys):
        (length,) = struct.unpack_from("<Q", data, at)
        key = data[at + 8 : at + 8 + length]
        (kind,) = struct.unpack_from("<I", data, at + 8 + length)
        at += 12 + length
        if key in (TOKENS, TYPES, TEMPLATE):
            found[key] = at
        at = _behind(data, at, kind)
    return found


def _behind(data: mmap.mmap, at: int, kind: int) -> int:
    """Where the value that begins at `at` ends."""
    if kind == STRING:
        (length,) = struct.unpack_from("<Q", data, at)
        return at + 8 + int(length)
    if kind != ARRAY:
        return at + SIZES[kind]
    inner, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if inner in SIZES:
        return at + int(count) * SIZES[inner]
    for _ in range(count):
        at = _behind(data, at, inner)
    return at


def _tokens(data: mmap.mmap, found: dict[bytes, int]) -> Iterator[tuple[int, bytes]]:
    """The tokens of the vocabulary with their types."""
    if TOKENS not in found or TYPES not in found:
        return
    _, count = struct.unpack_from("<IQ", data, found[TYPES])
    types = struct.unpack_from(f"<{count}i", data, found[TYPES] + 12)
    at = found[TOKENS] + 12
    for kind in types:
        (length,) = struct.unpack_from("<Q", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length
