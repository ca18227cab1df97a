"""The order in which the proposals of a layer stand in a prompt. Pure.

Models prefer some places, such as the first. So a seed draws the order, and no model's proposals always
stand in the same place. The order is drawn over all places of the layer, not only over the proposals
that came, so it is known before any proposal has come. A proposal that does not come is dropped, and
the others keep their order.
"""

import random
from collections.abc import Sequence

from configs.schema import Recipe
from serve_app.mixture.events import OrderMode, ProposalDone


class ReferenceOrder:
    """The order of one layer's proposals in the prompts of the stages that read them.

    The recipe's `references.order` says which order it is. `seeded`: the seed draws the order for each
    stage. `arrival`: the proposals stand in the order in which they came, and the seed decides only
    between proposals that came at the same time.

    Args:
        recipe: the recipe.
        count: number of the layer's places.
        seed: the answer's seed.
    """

    def __init__(self, recipe: Recipe, count: int, seed: int) -> None:
        self.mode: OrderMode = recipe.references.order
        """What decides the order."""
        self._count = count
        self._seed = seed

    @classmethod
    def of_given(cls, recipe: Recipe, given: Sequence[ProposalDone], seed: int) -> "ReferenceOrder":
        """The order of proposals that a client gives in place of those of the recipe's last layer.

        The order is drawn over the places of that layer, so the proposals of an earlier answer stand as
        they stood there. If a proposal has a place beyond the last place of the layer, the order is
        drawn over all places up to that place.
        """
        places = 1 + max((proposal.place for proposal in given), default=-1)
        return cls(recipe, max(recipe.samples[-1], places), seed)

    @property
    def by_arrival(self) -> bool:
        """Whether the proposals stand in the order in which they came."""
        return self.mode == "arrival"

    def places(self, stage: int) -> list[int]:
        """The layer's places in the order that the seed draws for a stage.

        Args:
            stage: number of the stage that reads the proposals. For a layer, it is the layer's number,
                from 1; for the last stage, it is the number of stages.
        """
        drawn = list(range(self._count))
        random.Random(f"{self._seed}/{stage}").shuffle(drawn)
        return drawn

    def sort(self, proposals: Sequence[ProposalDone], stage: int) -> list[ProposalDone]:
        """The layer's proposals in the order in which they stand in the prompt of a stage."""
        if len(proposals) < 2:
            return list(proposals)
        ranks = {place: rank for rank, place in enumerate(self.places(stage))}
        if self.by_arrival:
            return sorted(proposals, key=lambda p: (p.seconds, ranks[p.place]))
        return sorted(proposals, key=lambda p: ranks[p.place])
