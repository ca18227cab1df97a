"""What all settings are made of."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
T = TypeVar("T")
Many = Annotated[tuple[T, ...], Field(strict=False)]  # YAML and JSON write a tuple as a list


class Strict(BaseModel):
    """Base of every setting: unknown keys, other types, later changes, NaN and infinity are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
