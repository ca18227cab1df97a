"""The folders of LoRA adapters: found on this machine, or fetched.

Adapters are small, so they are fetched whole, even for a plan.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from huggingface_hub import snapshot_download

from actors.weights.allowed_folders import require_allowed
from actors.weights.hub import explained
from cluster.plan.lora import CONFIG, WEIGHTS
from configs.errors import WeightsError
from configs.weights import FolderSource, HubFolder, LocalFolder


def adapter_here(sources: Sequence[FolderSource]) -> Path | None:
    """The first folder of an adapter that is on this machine and may be read, or None."""
    for source in sources:
        with suppress(WeightsError, OSError, ValueError):
            return _folder(source, is_local=True)
    return None


def fetch_adapter(name: str, sources: Sequence[FolderSource]) -> Path:
    """Make sure that the folder of an adapter is on this machine, and return its path.

    Args:
        name: the adapter's name in the recipe, for the error message.
        sources: where the folder comes from. One that is here is used, else the first that delivers.

    Raises:
        WeightsError: no source delivered the folder; the message names the cause of each failure.
    """
    if (here := adapter_here(sources)) is not None:
        return here
    causes = []
    for source in sources:
        try:
            return _folder(source, is_local=False)
        except Exception as error:  # the Hub's client raises many errors; the next source may work
            where = source.hub if isinstance(source, HubFolder) else source.path
            causes.append(f"{where}: {' '.join(str(error).split()) or repr(error)}")
    raise WeightsError(f"no weights for adapter {name!r}: {'; '.join(causes)}", model=name)


def _folder(source: FolderSource, *, is_local: bool) -> Path:
    if isinstance(source, LocalFolder):
        folder = Path(source.path)
        require_allowed(folder)
    elif is_local:
        folder = _snapshot(source, is_local=True)
    else:
        folder = explained(source, lambda: _snapshot(source, is_local=False))
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise WeightsError(f"there is no {file}")
    return folder


def _snapshot(source: HubFolder, *, is_local: bool) -> Path:
    return Path(
        snapshot_download(
            source.hub,
            revision=source.revision,
            allow_patterns=[CONFIG, WEIGHTS],
            local_files_only=is_local,
        )
    )
