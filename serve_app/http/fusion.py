"""The part of a request that gives proposals: `moa.fuse`."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from actors.text.visible import is_blank
from configs.errors import BadRequest
from configs.methods import short_calls
from configs.schema import AnswerForm, Method, Recipe
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
    place: int | None = Field(None, ge=0, lt=MOST_PROPOSALS)
    """Place of the proposal in the layer from which it comes, as in the event of the proposal. By
    default its position in the request. Either all proposals have a place, or no proposal has a place.
    """

    @field_validator("text")
    @classmethod
    def _has_text(cls, text: str) -> str:
        if is_blank(text):
            raise PydanticCustomError("blank", "a proposal needs text")
        return text


class Fusion(StrictPart):
    """Have the aggregator write the answer over proposals that the client gives. No layer runs, and no
    proposer is asked."""

    proposals: list[GivenProposal] = Field(min_length=1, max_length=MOST_PROPOSALS)
    """The proposals. To have the prompt of an earlier answer again, give the proposals of the recipe's
    last layer with their places, and the seed of that answer. If the recipe has the order `arrival`,
    the aggregator reads the proposals as they stand in the request, so give them in the order of that
    answer's references."""
    aggregator: str | None = Field(None, min_length=1, max_length=256)
    """Name of the model that writes the answer, with the prompt and the sampling of the recipe's
    aggregator: any model of the recipe that the key may use. By default the recipe's aggregator."""
    method: Method | None = None
    """How one answer is made of the proposals; by default as the recipe says. `vote` needs a recipe
    that says where the answer stands in a proposal (`aggregator.answer` or `exit.answer`)."""

    @field_validator("proposals")
    @classmethod
    def _has_distinct_places(cls, proposals: list[GivenProposal]) -> list[GivenProposal]:
        places = [each.place for each in proposals if each.place is not None]
        if places and len(places) < len(proposals):
            raise PydanticCustomError("places", "give each proposal a place, or none of them")
        if (
            twice := next((n for n, place in enumerate(places) if place in places[:n]), None)
        ) is not None:
            message = "two proposals have the place {place}; each needs a place of its own"
            raise PydanticCustomError("places", message, {"place": places[twice]})
        return proposals

    @property
    def places(self) -> list[int]:
        """The places of the proposals; empty if the request does not give them."""
        return [each.place for each in self.proposals if each.place is not None]


def chosen_recipe(fuse: Fusion, model: str, recipe: Recipe, names: Sequence[str]) -> Recipe:
    """The recipe with the aggregator and the method that a request chooses.

    Args:
        fuse: what the request says.
        model: the model that the request asks.
        recipe: what is served.
        names: the names that the request's key may ask.

    Raises:
        BadRequest: the request asks one model alone, or it chooses an aggregator that is no model of
            the recipe, or that the key may not ask, or a method that the recipe does not allow.
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
    changed = aggregated_by(recipe, chosen)
    if fuse.method is None:
        return changed
    form = _answer_form(recipe)
    if fuse.method not in methods_of(recipe):
        message = (
            "moa.fuse.method: vote needs a recipe that says where answers stand (aggregator.answer)"
        )
        raise BadRequest(message, param="moa.fuse.method")
    changes = {"method": fuse.method, "answer": form}
    return changed.model_copy(update={"aggregator": changed.aggregator.model_copy(update=changes)})


def methods_of(recipe: Recipe) -> list[Method]:
    """The methods that `moa.fuse.method` may name with this recipe, the recipe's own method first."""
    allowed: list[Method] = ["merge", "select", "select_or_merge"]
    if _answer_form(recipe) is not None:
        allowed.append("vote")
    own = recipe.aggregator.method
    return [own, *(method for method in allowed if method != own)]


def _answer_form(recipe: Recipe) -> AnswerForm | None:
    """Where the answer stands in a proposal; None if the recipe does not say that."""
    return recipe.aggregator.answer or (recipe.exit.answer if recipe.exit else None)


def calls_at_once(recipe: Recipe, proposals: int) -> dict[str, int]:
    """Most calls of each model that a fusion of so many proposals has in flight at the same time."""
    aggregator = recipe.aggregator
    short = short_calls(aggregator.method, proposals, guard=aggregator.guard)
    return {recipe.host(aggregator.model): max(1, short)}
