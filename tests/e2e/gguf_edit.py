"""Copies a GGUF file with other metadata, with other texts of some tokens, or in parts, for tests."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
UINT16, UINT32, INT32, STRING, ARRAY = 2, 4, 5, 8, 9
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
        self.infos: list[tuple[bytes, int]] = []
        """Of each tensor, the bytes that describe it up to its offset, and the offset."""
        self.end_of_metadata = self._at
        for _ in range(self.tensors):
            start = self._at
            self._string()
            rank = self._scalar("I")
            self._at += 8 * rank + 4  # sizes and type
            self.infos.append((data[start : self._at], self._scalar("Q")))
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
    source: Path,
    target: Path,
    template: str | None = None,
    tokens: Mapping[str, str] | None = None,
    kind: int = USER_DEFINED,
    metadata: Mapping[str, tuple[int, Any]] | None = None,
) -> Path:
    """Write the copy to `target`.

    Args:
        source: the file.
        target: the copy.
        template: the copy's chat template; None for that of the file.
        tokens: the new text of a token by its old text.
        kind: the type that these tokens have in the copy.
        metadata: further values with their types, by key.
    """
    data = source.read_bytes()
    header = _Header(data)
    changed = {} if template is None else {"tokenizer.chat_template": (STRING, template.encode())}
    found = header.metadata | changed | dict(metadata or {})
    _rename(found, tokens or {}, kind)
    rest = data[header.end_of_metadata : header.end]
    start = _aligned(header.end, header)
    target.write_bytes(_file(found, header.tensors, rest, data[start:], header))
    return target


def split(source: Path, folder: Path, count: int) -> list[Path]:
    """Write the file in `count` parts into `folder`, as llama.cpp's gguf-split does."""
    data = source.read_bytes()
    header = _Header(data)
    start = _aligned(header.end, header)
    offsets = sorted(offset for _, offset in header.infos)
    ends = dict(zip(offsets, [*offsets[1:], len(data) - start], strict=True))
    files = []
    for number in range(count):
        mine = header.infos[
            len(header.infos) * number // count : len(header.infos) * (number + 1) // count
        ]
        metadata = (header.metadata if number == 0 else {}) | {
            "split.no": (UINT16, number),
            "split.count": (UINT16, count),
            "split.tensors.count": (INT32, len(header.infos)),
        }
        infos, body = b"", b""
        for info, offset in mine:
            infos += info + struct.pack("<Q", len(body))
            body += data[start + offset : start + ends[offset]]
        files.append(folder / f"{source.stem}-{number + 1:05}-of-{count:05}.gguf")
        files[-1].write_bytes(_file(metadata, len(mine), infos, body, header))
    return files


def _aligned(at: int, header: _Header) -> int:
    alignment: int = header.metadata.get("general.alignment", (UINT32, 32))[1]
    return -(-at // alignment) * alignment


def _file(
    metadata: Mapping[str, tuple[int, Any]], tensors: int, infos: bytes, body: bytes, header: _Header
) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, tensors, len(metadata))
    for key, (of, value) in metadata.items():
        head += _written(STRING, key.encode()) + struct.pack("<I", of) + _written(of, value)
    head += infos
    return head + b"\0" * (_aligned(len(head), header) - len(head)) + body


def _rename(metadata: dict[str, tuple[int, Any]], tokens: Mapping[str, str], kind: int) -> None:
    texts: list[bytes] = metadata["tokenizer.ggml.tokens"][1][1]
    kinds: list[int] = metadata["tokenizer.ggml.token_type"][1][1]
    for old, new in tokens.items():
        at = texts.index(old.encode())
        texts[at], kinds[at] = new.encode(), kind
