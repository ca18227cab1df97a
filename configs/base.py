"""The base class of all settings, and the types that many settings share."""

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError


def _require_below(path: str) -> str:
    steps = path.replace("\\", "/").split("/")
    if any(step in ("", ".", "..") for step in steps) or not path.isprintable():
        message = "this has to be a relative path of plain names, without '.' and '..'"
        raise PydanticCustomError("outside", message)
    return path


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
"""A name of a model, a mixture or a card: safe in URLs, file names and actor names."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 in lower-case hexadecimal digits."""
Seconds = Annotated[float, Field(gt=0, le=86_400)]
"""A time above 0 s and of at most a day."""
PathBelow = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_require_below)]
"""A relative path inside an archive or a repository. The path cannot lead out of it."""
T = TypeVar("T")
Many = Annotated[tuple[T, ...], Field(strict=False)]
"""A tuple, which YAML and JSON write as a list."""


class Strict(BaseModel):
    """Base of every group of settings: refuses unknown keys, wrong types, changes, NaN and infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
