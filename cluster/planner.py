"""Pure: (recipe, card) -> which share of the card each model's replicas get.

All models are resident and may run together, so their threads must add up to at most the cores:
llama.cpp engines that oversubscribe cores were measured 20 times slower than in turns.
"""

from dataclasses import dataclass

from cluster.card import Card
from configs.schema import LlamaCppModel, Recipe


@dataclass(frozen=True, slots=True)
class CardShare:
    """What one replica gets: a fraction of the card (0 to 1), and so many of its cores.

    A model that computes elsewhere, or not at all, has fraction 0 and no cores.
    """

    fraction: float = 0.0
    cores: int = 0


def share_out(recipe: Recipe, card: Card) -> dict[str, CardShare]:
    """Divide `card` evenly among the replicas of the models that compute on it.

    Threads that the recipe sets come first; the other replicas divide what is left of the cores. Each
    gets at least one, so where the cores do not suffice the last ones do oversubscribe: then the
    operating system shares them out, which is slow but correct.
    """
    local = {name: m for name, m in recipe.models.items() if isinstance(m, LlamaCppModel)}
    replicas = sum(m.replicas for m in local.values())
    taken = sum(m.replicas * (m.threads or 0) for m in local.values())
    others = sum(m.replicas for m in local.values() if m.threads is None)
    shares = dict.fromkeys(recipe.models, CardShare())
    for name, model in local.items():
        cores = model.threads or max(1, (card.cores - taken) // others)
        shares[name] = CardShare(fraction=1 / replicas, cores=cores)
    return shares
