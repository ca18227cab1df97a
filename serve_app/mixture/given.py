"""Proposals that a client gives in place of those of the recipe's layers: only the aggregator works.

So an answer is written anew without a proposal that was poor, or by another aggregator, and no proposer
is asked again.
"""

from collections.abc import Sequence

from configs.schema import Recipe
from serve_app.mixture.answer_form import of_fallback
from serve_app.mixture.events import Call, ProposalDone


def given_proposals(
    recipe: Recipe, proposals: Sequence[tuple[str, str]], places: Sequence[int] = ()
) -> list[ProposalDone]:
    """The given proposals, as if the proposers of the recipe's last layer had written them one by one.

    Args:
        recipe: has the layer.
        proposals: for each proposal, who wrote it (a label) and its text.
        places: the place of each proposal in the layer. If empty, the proposals have the first places
            of the layer.
    """
    places = places or range(len(proposals))
    return [
        ProposalDone(
            layer=len(recipe.layers),
            place=place,
            model=model,
            text=text,
            seconds=float(n),
            call=Call(model, "proposer", prompt_tokens=0, completion_tokens=0, engine_s=0.0),
        )
        for n, (place, (model, text)) in enumerate(zip(places, proposals, strict=True))
    ]


def aggregated_by(recipe: Recipe, model: str) -> Recipe:
    """The recipe with another of its models, or an adapter, as the aggregator. Prompt and sampling of
    the recipe's aggregator stay, and its fallbacks take over for the other model too."""
    chosen = recipe.aggregator
    if model == chosen.model:
        return recipe
    changes = {
        "model": model,
        "sampling": of_fallback(chosen.sampling),
        "fallbacks": tuple(name for name in chosen.fallbacks if name != model),
    }
    return recipe.model_copy(update={"aggregator": chosen.model_copy(update=changes)})
