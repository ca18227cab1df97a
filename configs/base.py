"""What all settings are made of."""

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError


def _stays_below(path: str) -> str:
    steps = path.replace("\\", "/").split("/")
    if any(step in ("", ".", "..") for step in steps) or not path.isprintable():
        raise PydanticCustomError("outside", "this has to be a plain path below where it counts from")
    return path


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Below = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_stays_below)]
"""A path that cannot lead out of what it is a part of, as a file in an archive."""
T = TypeVar("T")
Many = Annotated[tuple[T, ...], Field(strict=False)]  # YAML and JSON write a tuple as a list


class Strict(BaseModel):
    """Base of every setting: unknown keys, other types, later changes, NaN and infinity are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
