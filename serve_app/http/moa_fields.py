"""The fields that the events of a mixture and its summary share in their schemas.

A field means the same wherever it stands, so its description is written here once.
"""

from typing import Annotated, Literal

from pydantic import Field

from serve_app.error_schema import Described

LayerNumber = Annotated[int, Field(description="Number of the layer, counted from 1.")]
LayerOrAggregator = Annotated[
    int,
    Field(
        description="Number of the layer, counted from 1; 0 stands for the aggregator, and for a model "
        "that is asked by name."
    ),
]
Place = Annotated[
    int,
    Field(
        description="Position of the proposal in its layer, counted from 0. It tells proposals apart "
        "where one model writes several."
    ),
]
ModelName = Annotated[str, Field(description="Name of the model in the recipe.")]
Cause = Annotated[
    str,
    Field(
        description="Why the model did not contribute, for programs: `late` (it missed a deadline), "
        "`empty` (it wrote no text), `only_reasoning` (it thought and did not answer), "
        "`content_filter` (a filter of its server stopped it, or it refused to answer), "
        "`not_needed` (the answer was there before; nothing is missing), "
        "`quorum_not_met` (its proposal is complete, but its "
        "layer, which was not the first, had too few proposals to be used), or the code of an error."
    ),
]
Method = Annotated[
    Literal["merge", "select", "vote", "agreement", "first", "stand_in", "direct"],
    Field(
        description="How the text of the answer came about. `merge`: a model wrote it from the "
        "proposals. `direct`: the request asked for the model by name. With the other methods, the "
        "answer is a proposal as it stands. `select`: a model picked the proposal. `vote`: the "
        "proposal has the answer that most samples agree on. `agreement`: enough proposals agreed "
        "before all were there. `first`: the best member was sure. `stand_in`: no model could write "
        "or pick."
    ),
]
Why = Annotated[str, Field(description="Why the answer came about in this way, in words for people.")]
Detail = Annotated[str, Field(description="What happened, in words for people.")]
TokensRemoved = Annotated[int, Field(description="How many tokens of references were cut away.")]
Stage = Annotated[
    str,
    Field(description="`layer 1`, `layer 2` and so on, `aggregator`, or `direct` for one model alone."),
]
AtSeconds = Annotated[
    float,
    Field(description="When the stage began: seconds after the mixture began to work on the request."),
]
SinceLayer = Annotated[float, Field(description="Seconds since the layer began.")]
StageSeconds = Annotated[float, Field(description="Seconds that the stage took.")]
FirstSeconds = Annotated[
    float | None,
    Field(
        description="Seconds from the call of the model that wrote the answer to its first token, "
        "reasoning or text; null for a layer, and where a proposal is the answer."
    ),
]


class ReferenceFrom(Described):
    """A proposal that a model reads, by where it comes from."""

    layer: LayerNumber
    place: Place


References = Annotated[
    list[ReferenceFrom],
    Field(
        description="The proposals that the models of the stage read, in the order of their prompts. "
        "The first layer reads none. In a layer with `see`, each model reads some of them only."
    ),
]
