"""What a file is that should hold weights and does not, told by its first bytes. Pure.

The words tell nothing of the content: a recipe can name any file, and its content must not reach a
message (`actors/weights/allowed_folders.py`). One exception is the name of a blob in a manifest of
Ollama.
"""

import re

START_BYTES = 4096
"""How many of a file's first bytes are enough."""
PAGE = re.compile(rb"\s*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)
"""How web pages begin, and the XML of errors of storage in a cloud."""
POINTER = b"version https://git-lfs"
"""How a pointer of git-lfs begins (git-lfs/docs/spec.md)."""
OLLAMA = re.compile(
    rb'"application/vnd\.ollama\.image\.model"[^{}]*?"digest":\s*"sha256:([0-9a-f]{64})"'
)
"""The layer with the weights in a manifest of Ollama."""
ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "rar",
}
"""How packed files begin."""
OLD = (b"lmgg", b"fmgg", b"tjgg", b"algg")
"""How files of llama.cpp from before GGUF begin (ggml, ggmf, ggjt, ggla)."""
SAFETENSORS = "it holds safetensors: the engine vllm takes their folder, with config.json"
"""What is said of a file in the safetensors format, whose header has fewer than 4 GiB."""
PRINTABLE = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]*")


def foreign(start: bytes, size: int) -> str | None:
    """What a file is that holds no GGUF and no safetensors, and what to do; None if nobody knows.

    Args:
        start: its first bytes, `START_BYTES` of them if it has so many.
        size: all of its bytes.
    """
    if size == 0:
        return "it is empty: a download or copy has not begun; fetch it again"
    if start.startswith(POINTER):
        return (
            "it is a pointer of git-lfs, and not the file itself: run `git lfs pull` in its folder, or "
            "fetch it with `hf download`"
        )
    if PAGE.match(start):
        return (
            "it is a web page, and not weights: the address was that of a page, or asked for a login; "
            "fetch it with `hf download` (addresses of the Hub with /resolve/ are files, /blob/ pages)"
        )
    if not any(start):
        return "it begins with zeros alone: a download or copy has taken the room and is not finished"
    return _binary(start) or _text(start)


def _binary(start: bytes) -> str | None:
    if start[8:9] == b"{" and start[4:8] == bytes(4):
        return SAFETENSORS
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")):
        return "it is a zip archive or a file of PyTorch (.bin, .pt), which can run code; take GGUF"
    for mark, name in ARCHIVES.items():
        if start.startswith(mark):
            return f"it is packed ({name}): unpack it"
    if start.startswith(OLD):
        return "it is a file of llama.cpp from before GGUF (2023): fetch the model as GGUF"
    return None


def _text(start: bytes) -> str | None:
    if found := OLLAMA.search(start):
        blob = f"sha256-{found[1].decode()}"
        return f"it is a manifest of Ollama: its weights are the file blobs/{blob} of Ollama's models"
    if PRINTABLE.fullmatch(start):
        return (
            "it is a text, and not weights: the answer of a server that did not give the file, perhaps"
        )
    return None
