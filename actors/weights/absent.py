"""Why a path of a recipe is no file or folder that an engine reads, in words that say what to do."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

from actors.weights.allowed_folders import NOT_ALLOWED, is_allowed

UNFINISHED = (
    ".part",
    ".partial",
    ".incomplete",
    ".crdownload",
    ".download",
    ".downloadInProgress",
    ".aria2",
    ".tmp",
    "-partial",
)
"""How programs end the name of a download that is not finished: browsers, wget, the Hub's client,
llama.cpp, aria2, Ollama."""
MOST_NAMES = 4
"""Most names of files that a message lists."""


def why_no_file(path: Path) -> str:
    """Why `path` is no file that llama.cpp could read."""
    if not is_allowed(path):
        return NOT_ALLOWED
    if path.is_dir():
        found = sorted(file.name for file in _listed(path) if file.suffix.lower() == ".gguf")
        inside = f"; it has {_names(found)}" if found else ", and this one has no GGUF file"
        return f"it is a folder, and llama.cpp takes a file{inside}"
    if (unfinished := _unfinished(path)) is not None:
        return f"there is no such file, but a download that is not finished: {unfinished}"
    return _why_nothing(path) or f"there is no such file{_near(path)}"


def why_no_folder(path: Path) -> str:
    """Why `path` is no folder of a model that vLLM could read."""
    if not is_allowed(path):
        return NOT_ALLOWED
    if path.is_file():
        other = "; the engine llamacpp takes GGUF files" if path.suffix.lower() == ".gguf" else ""
        return f"it is a file, and vLLM takes the folder of a model, with config.json{other}"
    if not path.is_dir():
        return _why_nothing(path) or f"there is no such folder{_near(path)}"
    names = sorted(each.name for each in _listed(path))
    if "snapshots" in names and "blobs" in names:
        hub = path.name.removeprefix("models--").replace("--", "/", 1)
        return (
            "it is a repository in the cache of the Hub's client, whose models are in its folder "
            f"snapshots; say `hub: {hub}` in place of the path"
        )
    if gguf := [name for name in names if name.lower().endswith(".gguf")]:
        return f"there is no config.json; {_names(gguf)} is for the engine llamacpp"
    return "there is no config.json"


def _why_nothing(path: Path) -> str | None:
    """Why nothing can be read at `path`, if more is known than that."""
    try:
        path.stat()
    except PermissionError:
        return "this user may not read it"
    except OSError:
        if path.is_symlink():
            return f"it is a link to {os.readlink(path)}, and there is nothing"
        if "$" in str(path):
            return "there is nothing; variables such as $HOME are not read in a path, but ~ is"
    return None


def _unfinished(path: Path) -> str | None:
    names = [f"{path.name}{end}" for end in UNFINISHED]
    return next((name for name in names if path.with_name(name).exists()), None)


def _near(path: Path) -> str:
    """The file or folder beside `path` whose name is most like it, as a question."""
    names = [each.name for each in _listed(path.parent)]
    found = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    return f"; did you mean {found[0]}?" if found else ""


def _listed(folder: Path) -> Iterable[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return ()


def _names(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more
