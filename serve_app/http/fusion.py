"""The part of a request that gives proposals: `moa.fuse`."""

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

MOST_PROPOSALS = 256
"""Most proposals that a request gives. It is far more than any aggregator reads."""


class StrictPart(BaseModel):
    """Base of all parts of a request.

    As in OpenAI's API, a value of another type is refused rather than converted: the text "0.5" is no
    temperature.
    """

    model_config = ConfigDict(
        extra="forbid", allow_inf_nan=False, strict=True, use_attribute_docstrings=True
    )


class GivenProposal(StrictPart):
    """A proposal that the client gives, as an earlier answer or anybody else has written it."""

    model: str = Field(max_length=256)
    """Who wrote it. Any text will do: it is a label, and no model sees it."""
    text: str
    """The proposal."""

    @field_validator("text")
    @classmethod
    def _has_text(cls, text: str) -> str:
        if not text.strip():
            raise PydanticCustomError("blank", "a proposal needs text")
        return text


class Fusion(StrictPart):
    """Have the aggregator write the answer over proposals that the client gives. No layer runs, and no
    proposer is asked."""

    proposals: list[GivenProposal] = Field(min_length=1, max_length=MOST_PROPOSALS)
    """The proposals. Those of the recipe's last layer, in the order of their places, and the seed of
    their answer make the same prompt as that answer had."""
    aggregator: str | None = Field(None, min_length=1, max_length=256)
    """Name of the model that writes the answer, with the prompt and the sampling of the recipe's
    aggregator: any model of the recipe that the key may use. By default the recipe's aggregator."""
