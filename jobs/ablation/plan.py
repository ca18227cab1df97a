"""Which variants of a mixture an ablation needs, and which of them it compares. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from configs.errors import UserError
from configs.schema import Recipe
from jobs import variants
from jobs.variants import Variant, VariantError, proposer_models

Part = Literal["quantized", "proposers", "aggregators", "members"]
PARTS: tuple[Part, ...] = get_args(Part)


class AblationError(UserError):
    """Nothing can be compared so; the message names the field, the value and what is allowed."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """What is to be compared.

    recipe: of the base; baseline: the generator that all are judged against; judge: its name in
    verdicts; candidates: models to add as proposers and to aggregate with, by default those that
    propose nowhere, and all models; unquantized: the unquantized model by its quantized one.
    """

    recipe: Recipe
    baseline: str
    judge: str
    parts: Sequence[Part] = ("proposers", "aggregators", "members")
    candidates: Sequence[str] | None = None
    unquantized: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pairs = [model for pair in self.unquantized.items() for model in pair]
        _check("parts", self.parts, PARTS)
        _check("candidates", self.candidates or (), self.recipe.models)
        _check("unquantized", pairs, self.recipe.models)
        if "quantized" in self.parts and not set(pairs) & set(proposer_models(self.recipe)):
            _refuse(
                "unquantized",
                dict(self.unquantized),
                "models that propose:",
                proposer_models(self.recipe),
            )


@dataclass(slots=True)
class Plan:
    """Generators by name, and which of them are compared.

    quantized: pairs, the quantized one first; gains: by proposer, the mixtures with it and without it;
    aggregators: by candidate, itself alone and its mixture; members: the models of the base, alone;
    skipped: why some variants are not there.
    """

    base: Variant
    variants: dict[str, Variant] = field(default_factory=dict)
    quantized: list[tuple[str, str]] = field(default_factory=list)
    gains: dict[str, tuple[str, str]] = field(default_factory=dict)
    aggregators: dict[str, tuple[str, str]] = field(default_factory=dict)
    members: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def add(self, variant: Variant) -> str:
        """Its name."""
        return self.variants.setdefault(variant.name, variant).name

    def add_if_valid(self, make: Callable[[Recipe, str], Variant], model: str) -> str | None:
        """The name of a variant of the base, or None if the recipe does not have it."""
        try:
            return self.add(make(self.base.recipe, model))
        except VariantError as error:
            self.skipped.append(str(error))
            return None


def plan(task: Ablation) -> Plan:
    """All but Self-MoA, which verdicts decide.

    Raises:
        VariantError: with unquantized models, or with only these, the recipe is not valid.
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


def _quantized(task: Ablation, found: Plan) -> None:
    """A base with proposers of both kinds is compared as if it had only the one or the other."""
    quantized = {whole: model for model, whole in task.unquantized.items()}
    only_quantized = found.add(_only(task.recipe, quantized, "quantized"))
    only_whole = found.add(_only(task.recipe, task.unquantized, "unquantized"))
    found.quantized.append((only_quantized, only_whole))
    for models in task.unquantized.items():
        one, other = (found.add(variants.alone(task.recipe, model)) for model in models)
        found.quantized.append((one, other))


def _only(recipe: Recipe, new: Mapping[str, str], label: str) -> Variant:
    """The mixture with these proposers replaced, as far as it has them."""
    changes = {model: new[model] for model in proposer_models(recipe) if model in new}
    return variants.with_replacements(recipe, changes, label) if changes else variants.mixture(recipe)


def _proposers(task: Ablation, found: Plan) -> None:
    proposers = proposer_models(task.recipe)
    for model in proposers:
        if rest := found.add_if_valid(variants.without, model):
            found.gains[model] = found.base.name, rest
    for model in task.recipe.models if task.candidates is None else task.candidates:
        if model not in proposers and (more := found.add_if_valid(variants.with_also, model)):
            found.gains[model] = more, found.base.name


def _aggregators(task: Ablation, found: Plan) -> None:
    for model in task.recipe.models if task.candidates is None else task.candidates:
        if by := found.add_if_valid(_aggregated_by, model):
            found.aggregators[model] = found.add(variants.alone(task.recipe, model)), by


def _aggregated_by(recipe: Recipe, model: str) -> Variant:
    """The base where it is just that."""
    if model == recipe.aggregator.model and not recipe.aggregator.fallbacks:
        return variants.mixture(recipe)
    return variants.aggregated_by(recipe, model)


def _members(task: Ablation, found: Plan) -> None:
    for model in dict.fromkeys([*proposer_models(task.recipe), task.recipe.aggregator.model]):
        found.members.append(found.add(variants.alone(task.recipe, model)))


def _check(name: str, values: Iterable[str], known: Iterable[str]) -> None:
    if unknown := [value for value in values if value not in set(known)]:
        _refuse(name, unknown[0], "one of", known)


def _refuse(name: str, value: object, what: str, known: Iterable[str]) -> None:
    raise AblationError(f"{name}: {value!r} is not allowed here; it takes {what} {', '.join(known)}")
