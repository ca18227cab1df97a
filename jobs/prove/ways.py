"""The ways to an answer that a proof compares with the mixture, as variants of its recipe. Pure.

All of them share calls with the mixture: the first answer of a member is one of the mixture's
proposals, a pick and a vote work over the mixture's proposals, and the samples of the best member serve
Self-MoA and a vote alike. A call that is stored is not made again.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from configs.methods import MOST_SELECTED
from configs.schema import AnswerForm, Recipe
from jobs.variants import (
    Variant,
    VariantError,
    alone,
    by_method,
    mixture,
    proposer_models,
    sampled_alone,
    self_moa,
)

Kind = Literal["mixture", "member", "pick", "merge", "vote", "self_moa", "self_vote", "same_tokens"]
"""What a way is. `mixture`: the recipe as it is. `member`: one of its models alone. `pick`, `merge` and
`vote`: other methods over the mixture's proposals. `self_moa`: the best member in place of all
proposers, so with as many calls. `self_vote`: a vote of the same samples. `same_tokens`: the best
member sampled until it has written as much as the mixture."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to an answer, as the run keeps it."""

    kind: Kind
    name: str
    """The generator's name in the run."""
    model: str = ""
    """The member that answers alone, or that is sampled; empty if several members take part."""
    samples: int = 0
    """How often the member is sampled; 0 if several members take part."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


FEWEST_VOTES = 3
"""With fewer, nobody can be outvoted, and a vote is the answer of the more trusted one."""
Planned = tuple[Way, Variant]


@dataclass
class Ways:
    """Ways that the recipe allows, and why others are left out."""

    planned: list[Planned]
    left_out: list[str]

    def add(self, kind: Kind, make: Callable[[], Variant], model: str = "", samples: int = 0) -> None:
        """Add a way, or say why the recipe does not allow it."""
        try:
            variant = make()
        except VariantError as error:
            self.left_out.append(str(error))
            return
        self.planned.append((Way(kind, variant.name, model, samples), variant))


def members(recipe: Recipe) -> list[str]:
    """The models that take part in the mixture, the proposers first, in the recipe's order."""
    return list(dict.fromkeys([*proposer_models(recipe), recipe.aggregator.model]))


def first_ways(recipe: Recipe, form: AnswerForm | None) -> Ways:
    """The members, the mixture, and other methods over its proposals.

    Args:
        recipe: The mixture's recipe.
        form: Where the answer stands in a text; None if answers are judged, so that nothing can vote.
    """
    ways = Ways([], [])
    for model in members(recipe):
        ways.add("member", partial(alone, recipe, model), model, 1)
    ways.add("mixture", lambda: mixture(recipe))
    is_plain = recipe.exit is None and recipe.first is None
    method = recipe.aggregator.method
    if method != "select" or not is_plain:
        ways.add("pick", lambda: by_method(recipe, "select"))
    if method in ("select", "vote"):
        ways.add("merge", lambda: by_method(recipe, "merge"))
    if form is not None and recipe.layers[-1].samples < FEWEST_VOTES:
        ways.left_out.append(f"a vote needs {FEWEST_VOTES} proposals, and the last round has fewer")
    elif form is not None and (method != "vote" or not is_plain):
        ways.add("vote", lambda: by_method(recipe, "vote", form))
    return ways


def later_ways(recipe: Recipe, best: str, form: AnswerForm | None, tokens: float | None) -> Ways:
    """The best member, sampled more than once.

    Args:
        recipe: The mixture's recipe.
        best: The best member.
        form: Where the answer stands in a text; None if answers are judged.
        tokens: How many times as many tokens as one answer of the best member the mixture writes; None
            if that is not known.
    """
    ways = Ways([], [])
    plain = recipe.model_copy(update={"exit": None, "first": None})
    samples = recipe.layers[-1].samples
    if proposer_models(recipe) == (best,):
        ways.left_out.append(
            f"{best!r} is the only proposer, so the mixture is this member sampled as often"
        )
    else:
        ways.add("self_moa", lambda: self_moa(plain, best), best, samples)
    if form is not None and samples >= FEWEST_VOTES:
        ways.add("self_vote", lambda: sampled_alone(plain, best, samples, "vote", form), best, samples)
    fitting = min(MOST_SELECTED, round(tokens or 0))
    fewest = 2 if form is None else FEWEST_VOTES
    if fitting >= fewest and not (form is not None and fitting == samples):
        method = "select" if form is None else "vote"
        ways.add(
            "same_tokens", lambda: sampled_alone(plain, best, fitting, method, form), best, fitting
        )
    return ways


def read_ways(stored: Sequence[dict[str, Any]]) -> list[Way]:
    """The ways that a run keeps."""
    return [Way(**each) for each in stored]
