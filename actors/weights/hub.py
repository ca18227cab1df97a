"""What the Hub says about a repository, and its errors in words for people.

One request lists all files with their sizes and checksums (`HfApi.model_info`). The list is kept on
this machine, so that the next plan needs no network.
"""

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from huggingface_hub import HfApi, constants, get_token, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from actors.weights.cache import cache_root
from actors.weights.download import write_error
from configs.errors import WeightsError
from configs.weights import HubFile, HubFolder

HUB_PROBE_S = 3.0
"""Longest wait for the Hub's first answer, in seconds; after that the next source is tried."""
LIST_S = 10.0
"""Longest silence of the Hub, in seconds, once it is reached and makes the list of a repository."""
UNREACHABLE_S = 30.0
"""Seconds for which a Hub that could not be reached is not asked again: a recipe has several models,
and each of them would wait `HUB_PROBE_S`."""
HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
"""Base of all errors of the HTTP library that the Hub's client uses: httpx, or httpx2 from 2.0 on."""

COMMIT = re.compile("[0-9a-f]{40}")
SHA256 = re.compile("[0-9a-f]{64}")

_unreachable: dict[str, float] = {}
"""By the Hub's address: until when it is not asked again, on the clock of `time.monotonic`."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HubEntry:
    """A file of a repository."""

    size: int
    """Bytes."""
    sha256: str | None
    """Checksum; None for a small file that is stored in git itself."""


@dataclass(frozen=True, slots=True)
class Repository:
    """The files of a repository, at one commit."""

    commit: str
    files: Mapping[str, HubEntry]
    """By their path in the repository."""


def ask_hub(source: HubFolder) -> Repository:
    """Ask the Hub for the files of a repository, and keep the answer on this machine.

    Raises:
        WeightsError: the Hub cannot be reached, or refuses; the message says what to do.
    """

    def ask() -> Any:
        limits: Any = (HUB_PROBE_S, LIST_S, LIST_S, HUB_PROBE_S)  # connect, read, write, pool
        return HfApi().model_info(
            source.hub, revision=source.revision, files_metadata=True, timeout=limits
        )

    info = first_answer(source, ask)
    if not COMMIT.fullmatch(info.sha or ""):
        raise WeightsError(f"{constants.ENDPOINT} does not answer like the Hub: it names no commit")
    found = Repository(
        info.sha,
        {file.rfilename: HubEntry(file.size or 0, _sha256(file)) for file in info.siblings or ()},
    )
    _keep(source, found)
    return found


def _sha256(file: Any) -> str | None:
    """The checksum of a listed file. It becomes the name of a file, so nothing else may stand there."""
    found = file.lfs.sha256 if file.lfs else None
    return found if found is not None and SHA256.fullmatch(found) else None


def saved_repository(source: HubFolder) -> Repository | None:
    """The last answer of the Hub that is kept on this machine, or None. Needs no network."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        document = json.loads(_file(source).read_text("utf-8"))
        files = {name: HubEntry(size, sha256) for name, (size, sha256) in document["files"].items()}
        return Repository(document["commit"], files)
    return None


def _keep(source: HubFolder, repository: Repository) -> None:
    files = {name: [entry.size, entry.sha256] for name, entry in repository.files.items()}
    file = _file(source)
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    with suppress(OSError):  # a disk that is full or cannot be written costs the next plan a request
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({"commit": repository.commit, "files": files}), "utf-8")
        os.replace(partial, file)


def file_url(source: HubFile) -> str:
    """Where the Hub has a file."""
    return hf_hub_url(source.hub, source.file, revision=source.revision)


def checkpoint_path(source: HubFolder, version: str) -> Path:
    """Where this machine keeps what it knows of a repository, without an ending.

    Args:
        source: the repository.
        version: a revision or a commit.
    """
    name = f"{source.hub.replace('/', '--')}@{quote(version, safe='')}"
    return cache_root() / "checkpoints" / name


def _file(source: HubFolder) -> Path:
    path = checkpoint_path(source, source.revision)
    return path.with_name(path.name + ".json")


def first_answer(source: HubFolder | HubFile, ask: Callable[[], T]) -> T:
    """Call `ask` as `explained` does, unless the Hub could not be reached a moment ago.

    Raises:
        WeightsError: the Hub cannot be reached, or refuses.
    """
    endpoint = constants.ENDPOINT
    if time.monotonic() < _unreachable.get(endpoint, 0.0):
        raise WeightsError(f"the Hub ({endpoint}) could not be reached a moment ago")
    try:
        return explained(source, ask)
    except WeightsError as error:
        if _is_unreachable(error.__cause__):
            _unreachable[endpoint] = time.monotonic() + UNREACHABLE_S
        raise


def explained(source: HubFolder | HubFile, ask: Callable[[], T]) -> T:
    """Call `ask`, and turn errors of the Hub's client into one line that says what to do.

    Raises:
        WeightsError: the Hub cannot be reached, or refuses.
    """
    try:
        return ask()
    except WeightsError:
        raise
    except Exception as error:  # the Hub's client raises many errors
        raise WeightsError(explain(error, source)) from error


def explain(error: Exception, source: HubFolder | HubFile) -> str:
    """One line that says why the Hub did not give a repository or file, and what to do."""
    endpoint = constants.ENDPOINT
    page = f"{endpoint}/{source.hub}"
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return explain(error.__cause__, source)  # the client has looked into its cache after an error
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, and the files are not all on this machine"
    if isinstance(error, GatedRepoError):
        return _explain_gate(page)
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"there is no such repository at {endpoint}, or it is private: check its name; for a "
            "private one run `hf auth login`"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"it has no revision {source.revision!r}: {page} lists its branches and tags"
    if isinstance(error, EntryNotFoundError):
        name = (
            repr(source.file) if isinstance(source, HubFile) else f"such a file: {_first_line(error)}"
        )
        return f"it has no {name}; {page}/tree/{source.revision} lists its files"
    if isinstance(error, HfHubHTTPError):
        return _explain_status(error, page)
    if _is_unreachable(error):
        return f"the Hub ({endpoint}) cannot be reached: {_first_line(error)}"
    if isinstance(error, ValueError):
        return f"{endpoint} does not answer like the Hub: {_first_line(error)}"
    return write_error(error, Path(constants.HF_HUB_CACHE), "HF_HOME") or _first_line(error)


def _explain_gate(page: str) -> str:
    if get_token() is None:
        return f"its licence has to be accepted: do so at {page}, then run `hf auth login`"
    return (
        f"the token of this machine may not read it: accept the licence at {page} with the token's "
        "account, or run `hf auth login` for an account that has done so"
    )


def _explain_status(error: HfHubHTTPError, page: str) -> str:
    match error.response.status_code:
        case 401:
            return (
                "the Hub does not know the token of this machine: run `hf auth login` again, or "
                "correct HF_TOKEN"
            )
        case 403:
            return f"the token of this machine lacks the right to read it: {page}"
        case 429:
            return "the Hub has had too many requests from here: wait, or run `hf auth login`"
        case status if status >= 500:
            return f"the Hub answers {status}: try again later"
        case _:
            return _first_line(error)


def _is_unreachable(error: BaseException | None) -> bool:
    return isinstance(error, HTTP_ERROR) and not isinstance(error, HfHubHTTPError)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
