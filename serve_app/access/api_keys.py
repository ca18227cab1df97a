"""API keys: made, kept as hashes, read from a file or the environment, and recognised.

A key here is 32 random bytes, so its SHA-256 cannot be turned around by trying keys, as a password's
could; a slow hash would add nothing but work that any stranger can order with each request.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs.access import Allowance
from configs.cross_checks import Problem
from configs.errors import UserError
from configs.yaml_lines import BadDocument, Document

VARIABLE = "SLIMMOA_API_KEYS"
PREFIX = "sk-slimmoa-"
HASHED = re.compile(r"sha256:([0-9a-f]{64})")
KEY_NAME = re.compile(r"(?!sk-)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME_RULE = "a key's name has up to 64 letters, digits, '.', '_' and '-', and does not begin with sk-"
SHORTEST = 20  # characters of a key that somebody chose; those of `slimmoa keys new` have 54

logger = logging.getLogger(__name__)


class KeysError(UserError):
    """Keys that cannot be used; the message says where and why, and quotes no value."""


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as it is kept. digest: its SHA-256, 32 bytes."""

    name: str
    digest: bytes
    allowance: Allowance = field(default_factory=Allowance)


class _Entry(Allowance):
    key: str


class _Wrong(Exception):
    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems


def new_key() -> str:
    """A fresh key, to be shown once and kept nowhere: 256 random bits in URL-safe characters."""
    return PREFIX + secrets.token_urlsafe(32)


def line_of(name: str, key: str) -> str:
    """The line that lets `key` in, for a file of keys.

    Raises:
        KeysError: the name is not one.
    """
    if not KEY_NAME.fullmatch(name):
        raise KeysError(f"{NAME_RULE}: {name!r:.80}")
    return f"{name}: sha256:{_digest(key.encode()).hex()}"


def match(keys: Sequence[Key], presented: bytes) -> Key | None:
    """The key that was presented, if it is one of them. All are compared, each in constant time, so
    that the time tells neither how near a guess is nor which key it is."""
    digest = _digest(presented)
    found = None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def environment_keys() -> tuple[Key, ...]:
    """The keys of this process's environment; none if the variable is not set or empty.

    Raises:
        KeysError: see `from_environment`.
    """
    text = os.environ.get(VARIABLE, "").strip()
    return from_environment(text) if text else ()


def from_environment(text: str) -> tuple[Key, ...]:
    """Keys in plain, separated by commas, as a variable holds them; hashed at once.

    Raises:
        KeysError: one is too short to be a secret, or they are not plain ASCII.
    """
    keys = []
    for number, item in enumerate(text.split(","), 1):
        key = item.strip()
        if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
            what = f"at least {SHORTEST} ASCII characters without spaces"
            raise KeysError(f"{VARIABLE}: key {number} has {len(key)} characters; a key has {what}")
        keys.append(Key(f"{VARIABLE}[{number}]", _digest(key.encode())))
    return tuple(keys)


def parse(text: str, name: str) -> tuple[Key, ...]:
    """The content of a file of keys: `NAME: sha256:HEX`, or `NAME: {key: sha256:HEX, concurrency: 4}`
    with limits as in `Allowance`. name: of the file, for messages.

    Raises:
        KeysError: with every problem and its line; values are not quoted, for they may be keys.
    """
    try:
        document = Document(text)
    except BadDocument as error:
        raise KeysError(f"{name}:{error.problem.line or 1}: this is not readable YAML") from None
    if not isinstance(document.data, dict):
        raise KeysError(
            f"{name}:1: a file of keys is a mapping, NAME: sha256:HEX ({{}} lets nobody in)"
        )
    keys: list[Key] = []
    # A name that is none may be a key in the wrong place, so only its line is told.
    problems = [
        Problem((), NAME_RULE, document.line((key,)))
        for key in document.data
        if not KEY_NAME.fullmatch(key)
    ]
    if not problems:
        problems = document.duplicates
        for entry in document.data.items():
            try:
                keys.append(_key(*entry))
            except _Wrong as wrong:
                problems += wrong.problems
        problems += _repeated(keys)
    if problems:
        lines = [f"{name}:{p.line or document.line(p.where)}: {p}" for p in problems]
        raise KeysError("\n".join(lines))
    return tuple(keys)


class KeyFile:
    """A file of keys that may change: it is looked at again after `reload_s`.

    Raises:
        KeysError: at first, if it cannot be used. Later a broken or missing file leaves the keys as
            they were and is logged, once for each change.
    """

    def __init__(self, path: Path, reload_s: float) -> None:
        self._path = path
        self._reload_s = reload_s
        self._seen = _look(path)
        self._keys = _read(path)
        self._checked: float | None = None

    def current(self, now: float) -> tuple[Key, ...]:
        """The keys. now: of a clock in seconds."""
        if self._checked is None or now - self._checked >= self._reload_s:
            self._checked = now
            seen = _look(self._path)
            if seen != self._seen:
                self._seen = seen
                self._reload()
        return self._keys

    def _reload(self) -> None:
        try:
            self._keys = _read(self._path)
        except KeysError as error:
            logger.error("the keys stay as they were: %s", error)
        else:
            logger.info("%d keys read from %s", len(self._keys), self._path)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _look(path: Path) -> tuple[int, ...] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return (seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_mode)


def _read(path: Path) -> tuple[Key, ...]:
    try:
        with path.open(encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
                raise KeysError(f"{path}: everybody on this machine may write it; chmod o-w")
            text = file.read()
    except OSError as error:
        raise KeysError(f"cannot read the file of keys {str(path)!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KeysError(f"{path}: not UTF-8") from None
    return parse(text, str(path))


def _key(name: str, value: Any) -> Key:
    try:
        entry = _Entry.model_validate({"key": value} if isinstance(value, str) else value)
    except ValidationError as error:
        items = error.errors(include_url=False, include_input=False)
        raise _Wrong([Problem((name, *item["loc"]), item["msg"]) for item in items]) from None
    hashed = HASHED.fullmatch(entry.key)
    if hashed is None:
        raise _Wrong([Problem((name,), "only the key's hash stands here: sha256: and 64 hex digits")])
    allowance = Allowance.model_validate(entry.model_dump(exclude={"key"}))
    return Key(name, bytes.fromhex(hashed[1]), allowance)


def _repeated(keys: Sequence[Key]) -> Iterator[Problem]:
    names: dict[bytes, str] = {}
    for key in keys:
        if (first := names.setdefault(key.digest, key.name)) != key.name:
            yield Problem((key.name,), f"is the same key as {first}")
