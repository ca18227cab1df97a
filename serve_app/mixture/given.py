"""Proposals that a client gives in place of those of the recipe's layers: only the aggregator works.

So an answer is written anew without a proposal that was poor, or by another aggregator, and no proposer
is asked again.
"""

from collections.abc import Sequence

from configs.schema import Recipe
from serve_app.mixture.answer_form import of_fallback
from serve_app.mixture.events import Call, ProposalDone


def given_proposals(recipe: Recipe, proposals: Sequence[tuple[str, str]]) -> list[ProposalDone]:
    """Proposals of the recipe's last layer, as if its proposers had just written them.

    Args:
        recipe: has the layer.
        proposals: for each proposal, who wrote it (a label) and its text. Their order is that of their
            places.
    """
    return [
        ProposalDone(
            layer=len(recipe.layers),
            place=place,
            model=model,
            text=text,
            seconds=0.0,
            call=Call(model, "proposer", prompt_tokens=0, completion_tokens=0, engine_s=0.0),
        )
        for place, (model, text) in enumerate(proposals)
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
