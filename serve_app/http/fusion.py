"""The part of a request that gives proposals: `moa.fuse`."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from configs.errors import BadRequest
from configs.schema import Recipe
from serve_app.mixture.given import aggregated_by

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


def chosen_recipe(fuse: Fusion, model: str, recipe: Recipe, names: Sequence[str]) -> Recipe:
    """The recipe with the aggregator that a request chooses.

    Args:
        fuse: what the request says.
        model: the model that the request asks.
        recipe: what is served.
        names: the names that the request's key may ask.

    Raises:
        BadRequest: the request asks one model alone, or it chooses an aggregator that is no model of
            the recipe, or that the key may not ask.
    """
    if model != recipe.name:
        message = f"moa.fuse is for the mixture: the model has to be {recipe.name!r}, not {model!r}"
        raise BadRequest(message, param="moa.fuse")
    own = recipe.aggregator.model
    chosen = fuse.aggregator or own
    allowed = dict.fromkeys((own, *(name for name in names if name != recipe.name)))
    if chosen not in allowed:
        message = f"moa.fuse.aggregator: no model {chosen!r:.80} here; there are {', '.join(allowed)}"
        raise BadRequest(message, param="moa.fuse.aggregator")
    return aggregated_by(recipe, chosen)
