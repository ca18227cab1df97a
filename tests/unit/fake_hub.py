"""A Hub on this machine: as much of it as the real client of huggingface_hub asks for.

It lists repositories, redirects to large files at a second address as the Hub does, sends ranges, and
refuses as the Hub refuses. It notes every request, and the bytes that it sent.
"""

import hashlib
import http.server
import json
import os
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

TOKEN = "hf_good"
LARGE_BYTES = 512
"""From this size on a file is stored as a large one, below its SHA-256."""


def safetensors(tensors: dict[str, int], *, seed: int = 0) -> bytes:
    """A file of safetensors with 16-bit tensors of so many bytes, whose content is noise."""
    header, end = {}, 0
    for name, size in tensors.items():
        header[name] = {"dtype": "BF16", "shape": [size // 2], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    noise = hashlib.shake_256(f"{seed} {sorted(tensors)}".encode()).digest(end)
    return struct.pack("<Q", len(text)) + text + noise


CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 8192,
}


def checkpoint(shards: int = 2, size: int = 4096) -> dict[str, bytes]:
    """The files of a repository with a checkpoint in `shards` files of weights, and an index."""
    files = {
        "config.json": json.dumps(CONFIG).encode(),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}',
        "README.md": b"words",
    }
    weight_map = {}
    for n in range(1, shards + 1):
        name = f"model-{n:05}-of-{shards:05}.safetensors"
        tensors = {f"model.layers.{n}.weight": size, f"model.layers.{n}.bias": 64}
        files[name] = safetensors(tensors, seed=n)
        weight_map.update(dict.fromkeys(tensors, name))
    files["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    return files


def gguf_file() -> bytes:
    """A GGUF file with one tensor, in the shape of a tiny model."""

    def string(text: str) -> bytes:
        return struct.pack("<Q", len(text)) + text.encode()

    keys = {
        "llama.block_count": 2,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 256,
        "llama.attention.head_count": 8,
        "llama.attention.head_count_kv": 2,
        "llama.context_length": 8192,
        "llama.vocab_size": 1000,
    }
    out = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys) + 1)
    out += string("general.architecture") + struct.pack("<I", 8) + string("llama")
    out += b"".join(string(key) + struct.pack("<II", 4, value) for key, value in keys.items())
    out += string("token_embd.weight") + struct.pack("<IQQIQ", 2, 32, 100, 2, 0)
    return out + bytes(-len(out) % 32) + bytes(3200)


@dataclass
class FakeRepo:
    """A repository of the Hub."""

    files: dict[str, bytes]
    gated: bool = False
    """Whether its files are only for those with a token in `readers`."""
    private: bool = False
    readers: tuple[str, ...] = (TOKEN,)
    revisions: tuple[str, ...] = ("main",)

    @property
    def commit(self) -> str:
        parts = (f"{name} {hashlib.sha256(body).hexdigest()}" for name, body in self.files.items())
        return hashlib.sha1("\n".join(parts).encode()).hexdigest()


@dataclass
class FakeHub:
    """What the Hub has, and what it was asked for."""

    url: str = ""
    storage: str = ""
    """Where large files are: by another name, so that the client takes it for another machine."""
    repos: dict[str, FakeRepo] = field(default_factory=dict)
    tokens: tuple[str, ...] = (TOKEN, "hf_other")
    """Tokens of accounts. Any other token is refused."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each request."""
    sent: dict[str, int] = field(default_factory=dict)
    """Bytes that were sent of each large file, by its SHA-256."""
    break_after: dict[str, int] = field(default_factory=dict)
    """By SHA-256: after how many bytes of the file the connection breaks, every time."""
    stalls: bool = False
    """Whether a connection stays open without a word where it would break."""
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when the Hub ends."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Keys of the description of every repository that are not as they should be."""
    failing: int | None = None
    """The status of all answers, if not None."""

    def large(self, hub: str, name: str) -> str:
        """The SHA-256 of a file."""
        return hashlib.sha256(self.repos[hub].files[name]).hexdigest()

    def downloads(self) -> list[str]:
        """Names of the files that were asked for with GET, without ranges of headers."""
        return sorted(path.split("/resolve/")[1].split("/", 1)[1] for _, path in self.gets())

    def gets(self) -> list[tuple[str, str]]:
        return [(m, p) for m, p in self.requests if m == "GET" and "/resolve/" in p]

    def environment(self, folder: Any) -> dict[str, str]:
        """The environment of a user who has nothing yet, and for whom this is the Hub."""
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "SLIMMOA_"))}
        return keep | {
            "HF_ENDPOINT": self.url,
            "HF_HOME": f"{folder}/hf",
            "SLIMMOA_CACHE": f"{folder}/slimmoa",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        self.hub.requests.append((self.command, unquote(url.path)))
        if self.hub.failing is not None:
            return self._refuse(self.hub.failing)
        if api := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/(.+)", url.path):
            return self._describe(api[1], api[2], unquote(api[3]))
        if large := re.fullmatch(r"/storage/([0-9a-f]{64})", url.path):
            if self._token() is not None:  # the Hub's storage refuses whoever sends it a token too
                return self._refuse(400)
            bodies = (body for repo in self.hub.repos.values() for body in repo.files.values())
            body = next(body for body in bodies if hashlib.sha256(body).hexdigest() == large[1])
            return self._send(body, large[1])
        if file := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", url.path):
            return self._resolve(file[1], unquote(file[2]), unquote(file[3]))
        return self._refuse(404)

    def _token(self) -> str | None:
        header = self.headers.get("Authorization")
        return None if header is None else header.removeprefix("Bearer ")

    def _find(self, hub: str, revision: str) -> FakeRepo | None:
        """The repository, or None after a refusal."""
        token, repo = self._token(), self.hub.repos.get(hub)
        if token is not None and token not in self.hub.tokens:
            self._refuse(401, message="Invalid credentials in Authorization header")
        elif repo is None or (repo.private and token not in repo.readers):
            self._refuse(401 if token is None else 404, code="RepoNotFound")
        elif revision not in (*repo.revisions, repo.commit):
            self._refuse(404, code="RevisionNotFound")
        else:
            return repo
        return None

    def _describe(self, hub: str, what: str, revision: str) -> None:
        repo = self._find(hub, revision)
        if repo is None:
            return
        listed = [_facts(name, body) for name, body in repo.files.items()]
        if what == "tree":
            document: Any = [
                {"type": "file", "path": name, "size": size, "oid": oid}
                | ({"lfs": {"oid": lfs, "size": size, "pointerSize": 130}} if lfs else {})
                | ({"xetHash": lfs} if lfs and name.endswith(".safetensors") else {})
                for name, size, oid, lfs in listed
            ]
        else:
            siblings = [
                {"rfilename": name, "size": size, "blobId": oid}
                | ({"lfs": {"sha256": lfs, "size": size, "pointerSize": 130}} if lfs else {})
                for name, size, oid, lfs in listed
            ]
            document = {"id": hub, "sha": repo.commit, "siblings": siblings, "private": repo.private}
            document |= {"gated": "manual" if repo.gated else False, "tags": [], "downloads": 0}
            document |= self.hub.changes
        self._send(json.dumps(document).encode(), None, {"Content-Type": "application/json"})

    def _resolve(self, hub: str, revision: str, name: str) -> None:
        repo = self._find(hub, revision)
        if repo is None:
            return None
        if repo.gated and self._token() not in repo.readers:
            return self._refuse(401 if self._token() is None else 403, code="GatedRepo")
        body = repo.files.get(name)
        commit = {"X-Repo-Commit": repo.commit}
        if body is None:
            return self._refuse(404, code="EntryNotFound", more=commit)
        _, size, oid, lfs = _facts(name, body)
        if lfs is None:
            return self._send(body, None, commit | {"ETag": f'"{oid}"'})
        self.send_response(302)
        headers = {"Location": f"{self.hub.storage}/storage/{lfs}", "X-Linked-Etag": f'"{lfs}"'}
        for key, value in (commit | headers | {"X-Linked-Size": str(size)}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _send(self, body: bytes, large: str | None, more: dict[str, str] | None = None) -> None:
        first, last = 0, len(body) - 1
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(asked[1]), min(last, int(asked[2] or last))
        part = body[first : last + 1]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
        for key, value in (more or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = self.hub.break_after.get(large or "", len(body)) - first
        if large is not None:
            count = self.hub.sent.get(large, 0)
            self.hub.sent[large] = count + min(len(part), max(limit, 0))
        self.wfile.write(part[: max(limit, 0)])
        if limit < len(part):
            self.wfile.flush()
            if self.hub.stalls:
                self.hub.ended.wait()
            self.close_connection = True

    def _refuse(
        self, status: int, *, code: str = "", message: str = "", more: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {"X-Error-Code": code, "X-Error-Message": message, **(more or {})}.items():
            if value:
                self.send_header(key, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def _facts(name: str, body: bytes) -> tuple[str, int, str, str | None]:
    """Name, bytes, git's checksum, and the SHA-256 of a large file."""
    is_large = len(body) >= LARGE_BYTES and not name.endswith(".json")
    oid = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
    return name, len(body), oid, hashlib.sha256(body).hexdigest() if is_large else None


@contextmanager
def serve_hub() -> Iterator[FakeHub]:
    """A Hub that answers until the block ends."""
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    hub.storage = f"http://localhost:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    try:
        yield hub
    finally:
        hub.ended.set()
        server.shutdown()
        server.server_close()


def point_client_at(url: str, folder: Any, patch: pytest.MonkeyPatch) -> None:
    """Have the Hub's client of this process, which read its settings when it was imported, use `url`
    and a cache below `folder`."""
    patch.setenv("NO_PROXY", "127.0.0.1,localhost")
    patch.delenv("HF_TOKEN", raising=False)
    patch.setenv("SLIMMOA_CACHE", f"{folder}/slimmoa")
    patch.setattr(constants, "ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(constants, "HF_HUB_CACHE", f"{folder}/hf/hub")
    patch.setattr(constants, "HF_TOKEN_PATH", f"{folder}/hf/token")
