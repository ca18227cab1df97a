"""Plans an ablation: which variants of a mixture to make, and which of them to compare.

The *base* is the mixture of the task's recipe as it is. The plan depends on the task alone, not on any
answer or verdict.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from configs.errors import UserError
from configs.schema import Recipe
from jobs import variants
from jobs.variants import Variant, VariantError, proposer_models

Part = Literal["quantized", "proposers", "aggregators", "members"]
PARTS: tuple[Part, ...] = get_args(Part)
"""All kinds of comparisons; the docstring of `jobs.ablation.ablate` describes each."""


class AblationError(UserError):
    """An ablation cannot be made; the message names the field, the value and what is allowed."""


@dataclass(frozen=True, slots=True)
class AblationTask:
    """What an ablation compares.

    Raises:
        AblationError: a part or a model is unknown, or no model of `unquantized` proposes although
            quantized models are to be compared.
    """

    recipe: Recipe
    """The recipe of the base."""
    baseline: str
    """The generator that all variants are judged against."""
    judge: str
    """The judge's name in verdicts."""
    parts: Sequence[Part] = ("proposers", "aggregators", "members")
    """Kinds of comparisons."""
    candidates: Sequence[str] | None = None
    """Models to add as proposers and to aggregate with; by default all models of the recipe.

    Models that propose already are not added.
    """
    unquantized: Mapping[str, str] = field(default_factory=dict)
    """For each quantized model of the recipe, the unquantized model to compare it with."""

    def __post_init__(self) -> None:
        pairs = [model for pair in self.unquantized.items() for model in pair]
        _require_known("parts", self.parts, PARTS)
        _require_known("candidates", self.candidates or (), self.recipe.names)
        _require_known("unquantized", pairs, self.recipe.names)
        if "quantized" in self.parts and not set(pairs) & set(proposer_models(self.recipe)):
            _refuse(
                "unquantized",
                dict(self.unquantized),
                "models that propose:",
                proposer_models(self.recipe),
            )


@dataclass(slots=True)
class Plan:
    """The variants that an ablation needs, and which of them it compares, by their names."""

    base: Variant
    variants: dict[str, Variant] = field(default_factory=dict)
    """All variants, by name."""
    quantized: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of a quantized variant and an unquantized variant."""
    gains: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By proposer, the mixture with it and the mixture without it."""
    aggregators: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By candidate, the candidate alone and the mixture that it aggregates."""
    members: list[str] = field(default_factory=list)
    """The models of the base, each alone."""
    skipped: list[str] = field(default_factory=list)
    """Variants that cannot be made, and why."""

    def add(self, variant: Variant) -> str:
        """Add a variant unless it is planned already, and return its name."""
        return self.variants.setdefault(variant.name, variant).name

    def add_if_valid(self, make: Callable[[Recipe, str], Variant], model: str) -> str | None:
        """Add a variant of the base with one model changed.

        Returns:
            The variant's name; None if the recipe does not allow the variant. Then `skipped` says why.
        """
        try:
            return self.add(make(self.base.recipe, model))
        except VariantError as error:
            self.skipped.append(str(error))
            return None


def plan(task: AblationTask) -> Plan:
    """Plan all parts of the task except Self-MoA, whose model only the verdicts can decide.

    Raises:
        VariantError: the recipe is not valid with only quantized or only unquantized models.
    """
    base = variants.mixture(task.recipe)
    found = Plan(base, {base.name: base})
    parts = {
        "quantized": _quantized,
        "proposers": _proposers,
        "aggregators": _aggregators,
        "members": _members,
    }
    for part in task.parts:
        parts[part](task, found)
    return found


def _quantized(task: AblationTask, found: Plan) -> None:
    """Plan the comparisons of quantized models with unquantized ones, in a mixture and alone.

    One mixture has only quantized models, the other only unquantized ones. If the base has proposers of
    both kinds, both mixtures are variants of the base.
    """
    quantized = {whole: model for model, whole in task.unquantized.items()}
    only_quantized = found.add(_with_replaced(task.recipe, quantized, "quantized"))
    only_whole = found.add(_with_replaced(task.recipe, task.unquantized, "unquantized"))
    found.quantized.append((only_quantized, only_whole))
    for models in task.unquantized.items():
        one, other = (found.add(variants.alone(task.recipe, model)) for model in models)
        found.quantized.append((one, other))


def _with_replaced(recipe: Recipe, new: Mapping[str, str], label: str) -> Variant:
    """The mixture with new models in place of these proposers; the base if it has none of them."""
    changes = {model: new[model] for model in proposer_models(recipe) if model in new}
    return variants.with_replacements(recipe, changes, label) if changes else variants.mixture(recipe)


def _proposers(task: AblationTask, found: Plan) -> None:
    proposers = proposer_models(task.recipe)
    for model in proposers:
        if rest := found.add_if_valid(variants.without, model):
            found.gains[model] = found.base.name, rest
    for model in task.recipe.names if task.candidates is None else task.candidates:
        if model not in proposers and (more := found.add_if_valid(variants.with_also, model)):
            found.gains[model] = more, found.base.name


def _aggregators(task: AblationTask, found: Plan) -> None:
    for model in task.recipe.names if task.candidates is None else task.candidates:
        if by := found.add_if_valid(_with_aggregator, model):
            found.aggregators[model] = found.add(variants.alone(task.recipe, model)), by


def _with_aggregator(recipe: Recipe, model: str) -> Variant:
    """The mixture with this aggregator; the base if this is its aggregator and it has no fallbacks."""
    if model == recipe.aggregator.model and not recipe.aggregator.fallbacks:
        return variants.mixture(recipe)
    return variants.aggregated_by(recipe, model)


def _members(task: AblationTask, found: Plan) -> None:
    for model in dict.fromkeys([*proposer_models(task.recipe), task.recipe.aggregator.model]):
        found.members.append(found.add(variants.alone(task.recipe, model)))


def _require_known(name: str, values: Iterable[str], known: Iterable[str]) -> None:
    if unknown := [value for value in values if value not in set(known)]:
        _refuse(name, unknown[0], "one of", known)


def _refuse(name: str, value: object, what: str, known: Iterable[str]) -> None:
    raise AblationError(f"{name}: {value!r} is not allowed here; it takes {what} {', '.join(known)}")
