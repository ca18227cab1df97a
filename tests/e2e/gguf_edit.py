"""Copies a GGUF file with another chat template and other texts of some tokens, for tests."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
CONTROL, USER_DEFINED = 3, 4


class _Header:
    """Reads the metadata of a file, and writes it again."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 24
        self.tensors, keys = struct.unpack_from("<QQ", data, 8)
        self.metadata: dict[str, tuple[int, Any]] = {}
        for _ in range(keys):
            key, kind = self._string(), self._scalar("I")
            self.metadata[key.decode()] = (kind, self._value(kind))
        self.end_of_metadata = self._at
        for _ in range(self.tensors):
            self._string()
            rank = self._scalar("I")
            self._at += 8 * rank + 12  # sizes, type and offset
        self.end = self._at

    def _scalar(self, form: str) -> Any:
        (value,) = struct.unpack_from(f"<{form}", self._data, self._at)
        self._at += struct.calcsize(f"<{form}")
        return value

    def _string(self) -> bytes:
        length = self._scalar("Q")
        self._at += length
        return self._data[self._at - length : self._at]

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind != ARRAY:
            return self._scalar(SCALARS[kind])
        inner, count = self._scalar("I"), self._scalar("Q")
        return inner, [self._value(inner) for _ in range(count)]


def _written(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return struct.pack("<Q", len(value)) + bytes(value)
    if kind != ARRAY:
        return struct.pack(f"<{SCALARS[kind]}", value)
    inner, items = value
    return struct.pack("<IQ", inner, len(items)) + b"".join(_written(inner, item) for item in items)


def edited(
    source: Path, target: Path, template: str, tokens: Mapping[str, str], kind: int = USER_DEFINED
) -> Path:
    """Write the copy to `target`.

    Args:
        source: the file.
        target: the copy.
        template: the copy's chat template.
        tokens: the new text of a token by its old text.
        kind: the type that these tokens have in the copy.
    """
    data = source.read_bytes()
    header = _Header(data)
    metadata = header.metadata
    metadata["tokenizer.chat_template"] = (STRING, template.encode())
    texts: list[bytes] = metadata["tokenizer.ggml.tokens"][1][1]
    kinds: list[int] = metadata["tokenizer.ggml.token_type"][1][1]
    for old, new in tokens.items():
        at = texts.index(old.encode())
        texts[at], kinds[at] = new.encode(), kind
    head = data[:8] + struct.pack("<QQ", header.tensors, len(metadata))
    for key, (of, value) in metadata.items():
        head += _written(STRING, key.encode()) + struct.pack("<I", of) + _written(of, value)
    head += data[header.end_of_metadata : header.end]
    alignment = metadata.get("general.alignment", (4, 32))[1]
    start = -(-header.end // alignment) * alignment
    head += b"\0" * (-len(head) % alignment)
    target.write_bytes(head + data[start:])
    return target
