"""API keys: generated, kept as hashes, read from a file or the environment, and recognised.

A generated key is 32 random bytes. So nobody can find the key from its SHA-256 by trying keys, as
passwords can be found. A slow hash would protect nothing more, and would cost its time at every
request, even a stranger's.
"""

import errno
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

from configs import sentences
from configs.access import Allowance
from configs.errors import UserError
from configs.problem import Problem
from configs.yaml_lines import MOST_CHARACTERS, BadDocument, Document

VARIABLE = "SLIMMOA_API_KEYS"
"""The environment variable that holds keys in plain text, separated by commas."""
PREFIX = "sk-slimmoa-"
"""What generated keys begin with. The names of keys may not begin with sk-, so a key in the place of a
name is refused."""
HASHED = re.compile(r"sha256:([0-9a-f]{64})")
KEY_NAME = re.compile(r"(?!sk-)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME_RULE = "a key's name has up to 64 letters, digits, '.', '_' and '-', and does not begin with sk-"
MAKES_ONE = "`slimmoa keys new --name NAME >> FILE` makes a file of keys"
UNREADABLE = {
    errno.ENOENT: f"there is no such file ({MAKES_ONE})",
    errno.ELOOP: "its links lead in a circle",
    errno.EISDIR: "it is a folder",
    errno.EACCES: "you may not read it (look at its permissions with `ls -l`)",
}
"""Why a file of keys cannot be read."""
SHORTEST = 20
"""Fewest characters of a key in the environment variable, where a person may have chosen the key. A
generated key has 54."""

logger = logging.getLogger(__name__)


class KeysError(UserError):
    """Keys that cannot be used. The message says where and why. It quotes no value from a file of keys
    or from the environment, because the value may be a key."""


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as the server keeps it: the hash, never the key itself."""

    name: str
    """Name of the key's owner. What counts against the limits is counted under this name."""
    digest: bytes
    """SHA-256 of the key, 32 bytes; empty in the Key that stands for all requests without keys."""
    allowance: Allowance = field(default_factory=Allowance)
    """Limits of this key alone, from its line in the file of keys. `Authenticator.authenticate`
    completes them with the recipe's limits."""
    is_operator: bool = False
    """Whether the owner may see the requests of all keys in `/v1/state`."""


class _Entry(Allowance):
    """The value of a name in a file of keys: the limits, and the hash of the key."""

    key: str
    operator: bool = False


class _BadEntry(Exception):
    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems


def generate_key() -> str:
    """A new key: `PREFIX` and 256 random bits in URL-safe characters. Callers show the key once and
    keep only its hash."""
    return PREFIX + secrets.token_urlsafe(32)


def key_line(name: str, key: str) -> str:
    """The line of a file of keys that makes `key` valid under a name.

    Raises:
        KeysError: the name breaks NAME_RULE.
    """
    if not KEY_NAME.fullmatch(name):
        raise KeysError(f"{NAME_RULE}: {name!r:.80}")
    return f"{name}: sha256:{_digest(key.encode()).hex()}"


def find_key(keys: Sequence[Key], presented: bytes) -> Key | None:
    """The key that a request presented, or None if it is not among `keys`.

    The presented key is compared with all keys, each time in constant time. So the duration tells
    neither how close a guess is nor which key matched.
    """
    digest = _digest(presented)
    found = None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def read_environment_keys() -> tuple[Key, ...]:
    """The keys of this process's environment; none if the variable is not set or empty.

    Raises:
        KeysError: a key in the variable cannot be used, as in `parse_environment`.
    """
    text = os.environ.get(VARIABLE, "").strip()
    return parse_environment(text) if text else ()


def parse_environment(text: str) -> tuple[Key, ...]:
    """The keys in the text of the environment variable. A key is named by its number, from 1.

    Raises:
        KeysError: a key is too short to be a secret, or is not printable ASCII without spaces.
    """
    keys = []
    for number, item in enumerate(text.split(","), 1):
        key = item.strip()
        if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
            what = f"at least {SHORTEST} ASCII characters without spaces"
            raise KeysError(f"{VARIABLE}: key {number} has {len(key)} characters; a key has {what}")
        keys.append(Key(f"{VARIABLE}[{number}]", _digest(key.encode())))
    return tuple(keys)


def parse_keys(text: str, name: str) -> tuple[Key, ...]:
    """The keys in the content of a file of keys.

    The lines of the file are `NAME: sha256:HEX`, or `NAME: {key: sha256:HEX, concurrency: 4}` with
    limits as in `Allowance`. `operator: true` lets the owner see the requests of all keys.

    Args:
        text: the content, in YAML.
        name: name of the file, for messages.

    Raises:
        KeysError: the text is no YAML or no mapping, or has mistakes. The message has each mistake with
            its line. If names of keys break NAME_RULE, the message has only these mistakes. No
            value is quoted, because the value may be a key.
    """
    try:
        document = Document(text)
    except BadDocument as error:
        raise KeysError(f"{name}:{error.problem.line or 1}: this is not readable YAML") from None
    if not isinstance(document.data, dict):
        raise KeysError(
            f"{name}:1: a file of keys is a mapping, NAME: sha256:HEX ({{}} lets nobody in)"
        )
    if {"models", "layers"} <= document.data.keys():
        raise KeysError(f"{name}: this is a recipe, not a file of keys; {MAKES_ONE}")
    keys: list[Key] = []
    # A name that breaks the rule may be a key in the wrong place, so the message has only its line.
    problems = [
        Problem((), NAME_RULE, document.line((key,)))
        for key in document.data
        if not KEY_NAME.fullmatch(key)
    ]
    if not problems:
        problems = document.duplicates
        for entry in document.data.items():
            try:
                keys.append(_parse_entry(*entry))
            except _BadEntry as error:
                problems += error.problems
        problems += _repeated_keys(keys)
    if problems:
        lines = [f"{name}:{p.line or document.line(p.where)}: {p}" for p in problems]
        raise KeysError("\n".join(lines))
    return tuple(keys)


class KeyFile:
    """A file of keys that may change while the server runs.

    1. The file is read first when the object is made. A file that cannot be used is an error then.
    2. `current` looks whether the file has changed, unless its last look was less than `reload_s`
       seconds ago. A changed file is read again.
    3. If a changed file is broken or missing, the keys stay as they were. This is logged once per
       change.

    Args:
        path: the file.
        reload_s: least seconds between two looks at the file.

    Raises:
        KeysError: rule 1; the message names the file and what is wrong.
    """

    def __init__(self, path: Path, reload_s: float) -> None:
        self._path = path
        self._reload_s = reload_s
        self._state = _file_state(path)
        """The state of the file when it was last read, or last refused."""
        self._keys = _read(path)
        self._checked_at_s: float | None = None

    def current(self, now: float) -> tuple[Key, ...]:
        """The keys that are valid now.

        Args:
            now: seconds on a steady clock; all calls have to use the same clock.
        """
        if self._checked_at_s is None or now - self._checked_at_s >= self._reload_s:
            self._checked_at_s = now
            state = _file_state(self._path)
            if state != self._state:
                self._state = state
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


def _file_state(path: Path) -> tuple[int, ...] | None:
    """Figures that change when the file is written or replaced; None if the file is not there."""
    try:
        state = path.stat()
    except OSError:
        return None
    return (state.st_ino, state.st_size, state.st_mtime_ns, state.st_mode)


def _read(path: Path) -> tuple[Key, ...]:
    try:
        with path.open(encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
                raise KeysError(f"{path}: everybody on this machine may write it; chmod o-w")
            text = file.read(MOST_CHARACTERS + 1)
    except OSError as error:
        why = UNREADABLE.get(error.errno or 0, error.strerror)
        raise KeysError(f"cannot read the file of keys {str(path)!r}: {why}") from None
    except UnicodeDecodeError:
        raise KeysError(f"{path}: not UTF-8: save the file as UTF-8 text") from None
    return parse_keys(text, str(path))


def _parse_entry(name: str, value: Any) -> Key:
    try:
        entry = _Entry.model_validate({"key": value} if isinstance(value, str) else value)
    except ValidationError as error:
        found = sentences.problems(error, _Entry, quotes=False)
        raise _BadEntry([Problem((name, *each.where), each.message) for each in found]) from None
    hashed = HASHED.fullmatch(entry.key)
    if hashed is None:
        raise _BadEntry(
            [
                Problem(
                    (name,),
                    "this has to be the key's hash, sha256: and 64 hex digits, as `slimmoa keys new` "
                    "prints it",
                )
            ]
        )
    allowance = Allowance.model_validate(entry.model_dump(exclude={"key", "operator"}))
    return Key(name, bytes.fromhex(hashed[1]), allowance, entry.operator)


def _repeated_keys(keys: Sequence[Key]) -> Iterator[Problem]:
    names: dict[bytes, str] = {}
    for key in keys:
        if (first := names.setdefault(key.digest, key.name)) != key.name:
            yield Problem((key.name,), f"is the same key as {first}")
