"""A model that a person names becomes what a recipe and a plan need: a source of weights and its facts.

A name is a path of this machine, or one that `hub_names.py` takes apart. Nothing but headers and small
files is fetched.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from actors.weights.cache import cache_root
from actors.weights.chat_templates import (
    TEMPLATE_FILE,
    TEMPLATE_FILES,
    folder_template,
    template_in_json,
)
from actors.weights.choice import weights_here
from actors.weights.folders import folder_here
from actors.weights.gguf_headers import GGUF_TEMPLATE, fetch_gguf, fetch_header
from actors.weights.headers import fetch_headers, headers_here
from actors.weights.hub import HTTP_ERROR, Repository, ask_hub, saved_repository
from actors.weights.hub_names import HubName, choose_gguf, nearest, parse_hub_name
from actors.weights.repository import FolderDownload, repository_here, small_file
from cluster.plan.checkpoint import Checkpoint, from_folder, from_gguf, from_shapes, shapes
from cluster.plan.gguf import read_header
from configs.errors import WeightsError
from configs.load import load, presets
from configs.schema import LlamaCppModel, VllmModel
from configs.weights import (
    FolderSource,
    HubFile,
    HubFolder,
    LocalFile,
    LocalFolder,
    WeightsSource,
    part_names,
)

HASH = re.compile("[0-9a-f]{32,}")
"""The name of a file in a cache, which tells nothing."""


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model that a person named, as far as a recipe needs to know it."""

    asked: str
    """The name as it was written."""
    label: str
    """The repository's, folder's or file's own name."""
    source: WeightsSource | FolderSource
    """Where its weights come from. At the Hub, a commit and checksums are pinned."""
    checkpoint: Checkpoint
    template: str
    """Its chat template; "" if it has none or none is known."""

    @property
    def is_gguf(self) -> bool:
        """Whether it is a GGUF file, for llama.cpp, and not a folder, for vLLM."""
        return isinstance(self.source, LocalFile | HubFile)


def find_model(asked: str) -> NamedModel:
    """Look up a model that a person names.

    Args:
        asked: a path of a GGUF file or a model's folder, or a name of the Hub (see `parse_hub_name`).

    Raises:
        WeightsError: there is no such model, or it cannot be read; one line says what to do.
        UnknownCheckpoint: its files cannot be understood.
    """
    path = Path(os.path.expanduser(asked))
    if asked.strip() and os.path.exists(path):
        return _local(asked, path)
    name = parse_hub_name(asked)
    if name is None or asked.startswith((".", "/", "~")):
        near = "" if asked.startswith((".", "/", "~")) else _near_id(asked)
        raise WeightsError(
            f"{asked!r} is no file or folder here, and no id of the Hub such as owner/name, "
            f"owner/name:Q4_K_M or owner/name/file.gguf{near}"
        )
    return _at_hub(asked, name)


def _local(asked: str, path: Path) -> NamedModel:
    path = path.absolute()
    if path.is_dir() and not (path / "config.json").is_file():
        names = [file.name for file in path.iterdir()]
        if not any(name.lower().endswith(".gguf") for name in names):
            raise WeightsError(f"the folder {asked} has no config.json and no GGUF file")
        path = path / choose_gguf(names, HubName(str(path)))
    if path.is_dir():
        weights_here(path)
        template = folder_template(path)
        return NamedModel(asked, path.name, LocalFolder(path=str(path)), from_folder(path), template)
    checkpoint = from_gguf(path)
    metadata = read_header(path).metadata
    label = _text(metadata.get("general.name")) if HASH.fullmatch(path.stem) else path.stem
    template = _text(metadata.get(GGUF_TEMPLATE))
    return NamedModel(asked, label or path.stem, LocalFile(path=str(path)), checkpoint, template)


def _at_hub(asked: str, name: HubName) -> NamedModel:
    source = HubFolder(hub=name.hub, revision=name.revision)
    try:
        repository = _repository(source)
    except WeightsError as error:
        if _is_unreachable(error) and (shape := _bundled(name)) is not None:
            return NamedModel(asked, name.hub.split("/")[1], source, shape, "")
        raise _in_words(error, asked, name.hub) from error
    try:
        if _means_gguf(name, repository):
            return _hub_file(asked, name, repository)
        return _hub_folder(asked, HubFolder(hub=name.hub, revision=repository.commit), repository)
    except WeightsError as error:
        raise _in_words(error, asked, name.hub) from error


def _means_gguf(name: HubName, repository: Repository) -> bool:
    if name.file is not None or name.quantization is not None:
        return True
    files = repository.files
    return "config.json" not in files or (
        not any(file.endswith(".safetensors") for file in files)
        and any(file.lower().endswith(".gguf") for file in files)
    )


def _hub_file(asked: str, name: HubName, repository: Repository) -> NamedModel:
    file = choose_gguf(repository.files, name)
    parts = part_names(file)
    if absent := [part for part in parts if part not in repository.files]:
        raise WeightsError(f"{name.hub} has {file} in {len(parts)} parts, and not {absent[0]}")
    sums = [repository.files[part].sha256 for part in parts]
    sha256 = {"sha256": sums[0]} if len(parts) == 1 else {"part_sha256": sums if all(sums) else None}
    source = HubFile.model_validate(
        {"hub": name.hub, "file": file, "revision": repository.commit, **sha256}
    )
    checkpoint = fetch_gguf(source)
    template = fetch_header(source).metadata.get(GGUF_TEMPLATE, "")
    return NamedModel(asked, name.hub.split("/")[1], source, checkpoint, _text(template))


def _hub_folder(asked: str, source: HubFolder, repository: Repository) -> NamedModel:
    here = folder_here([source])
    checkpoint = headers_here(source) if here is None else from_folder(here)
    if checkpoint is None:
        checkpoint = fetch_headers(source)
        repository = saved_repository(source) or repository
    found = FolderDownload(source, repository, (), ())
    return NamedModel(asked, source.hub.split("/")[1], source, checkpoint, _hub_template(found))


def _hub_template(found: FolderDownload) -> str:
    for file in TEMPLATE_FILES:
        if file in found.repository.files:
            text = small_file(found.source, found.repository, file).read_text("utf-8", "replace")
            template = text if file == TEMPLATE_FILE else template_in_json(text)
            if template:
                return template
    return ""


def _repository(source: HubFolder) -> Repository:
    """The files of a repository: as the Hub says; if it does not answer, as it said the last time, or
    those that the cache of its client has."""
    try:
        return ask_hub(source)
    except WeightsError as error:
        known = saved_repository(source) or repository_here(source) if _is_unreachable(error) else None
        if known is None:
            raise
        return known


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _bundled(name: HubName) -> Checkpoint | None:
    if name.file or name.quantization or name.revision != "main":
        return None
    return from_shapes(name.hub)


def _is_unreachable(error: WeightsError) -> bool:
    """Whether the Hub did not answer at all, just now or a moment ago, or may not be asked."""
    cause = error.__cause__
    if cause is None:
        return "could not be reached" in error.message
    refused = isinstance(cause, HTTP_ERROR) and hasattr(cause, "response")
    offline = type(cause).__name__ == "OfflineModeIsEnabled"
    return offline or (isinstance(cause, HTTP_ERROR) and not refused)


def _in_words(error: WeightsError, asked: str, hub: str) -> WeightsError:
    """The error in one line that begins with the model's name and says what to do."""
    cause = error.__cause__
    if isinstance(cause, GatedRepoError):
        token = ", or set HF_TOKEN" if error.message.endswith("`hf auth login`") else ""
        return WeightsError(f"{asked}: {error.message}{token}")
    if isinstance(cause, RepositoryNotFoundError):
        near = _near_id(hub)
        private = "" if near else ", or it is private: then run `hf auth login`"
        return WeightsError(f"{asked}: the Hub has no repository {hub}{near or private}")
    if _is_unreachable(error):
        return WeightsError(
            f"{asked}: {error.message}; a plan needs the sizes of its weights: try again with a "
            f"network, or name a GGUF file or a model's folder of this machine{_near_id(hub)}"
        )
    return error if error.message.startswith(hub) else WeightsError(f"{asked}: {error.message}")


def _near_id(hub: str) -> str:
    ids = known_ids()
    return "" if hub in ids else nearest(hub, ids)


def known_ids() -> set[str]:
    """Ids of the Hub that this machine knows: of presets, of bundled shapes, and those asked for."""
    ids = set(shapes())
    for preset in presets():
        for model in load(preset).models.values():
            if isinstance(model, LlamaCppModel | VllmModel):
                ids |= {s.hub for s in model.weights if isinstance(s, HubFile | HubFolder)}
    kept = (cache_root() / "checkpoints").glob("*--*@*.json")
    return ids | {file.name.split("@")[0].replace("--", "/", 1) for file in kept}
