"""Advice for a recipe that does not fit: other settings, smaller weights, or other cards.

Pure. Each advice has been tried: with it, the planner finds a placement.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cluster.cards.card import Card
from cluster.cards.known_cards import CARDS, is_advised
from cluster.plan.checkpoint import Checkpoint
from cluster.plan.footprint import kv_cache_tokens
from cluster.plan.task import PlanningTask
from cluster.plan.widths import WIDTHS, place_on_fewest_gpus
from configs.schema import LlamaCppModel, Model, Recipe

LEAST_PROMPT = 512
"""An advised context leaves at least this many tokens for the prompt, beside the longest answer."""
CONTEXT_STEP = 256
"""An advised context is a multiple of this many tokens."""
LAYER_SHARES = (0.75, 0.5, 0.25)
"""Layers of llama.cpp's models to try on GPUs, as parts of all layers."""
CONTEXT_SHARES = (0.75, 0.5, 0.25)
"""Lengths of contexts to try, as parts of the present length."""
FOUR_BITS = 4 + (16 + 4) / 128
"""Bits per weight of a 4-bit matrix with a scale of 16 bits and a zero point of 4 bits for every 128
weights, as AWQ stores it. Embeddings and the output layer stay in 16 bits."""
LEAST_SAVING = 0.5
"""A checkpoint is smaller only if it has at most this part of the present bytes per weight."""

Change = tuple[str, str, int | str]
"""A new value for one setting: (the model's name, the setting's key, the value)."""


@dataclass(frozen=True, slots=True)
class Advice:
    """A change with which the recipe fits."""

    text: str
    """The change in words; it completes "It fits ..."."""
    changes: tuple[Change, ...] = ()
    """New settings for the recipe; empty if another kind of change is advised."""
    bits: tuple[tuple[str, float], ...] = ()
    """Pairs of a model's name and the bits per weight of a smaller checkpoint for it; empty if none."""
    cards: tuple[Card, ...] = ()
    """Cards to use in place of all present ones; empty if the present ones are enough."""

    def applied(self, recipe: Recipe) -> Recipe:
        """The recipe with the new settings."""
        data = recipe.model_dump()
        for model, key, value in self.changes:
            data["models"][model][key] = value
        return Recipe.model_validate(data)


def find_advice(task: PlanningTask) -> Iterator[Advice]:
    """Yield the mildest settings that fit, or else the fewest smaller weights; then cards that fit."""
    advice = _smaller_settings(task) or _fewer_bits(task)
    if advice is not None:
        yield advice
    yield from _other_cards(task)


def with_bits(checkpoint: Checkpoint, bits: float) -> Checkpoint:
    """The checkpoint with `weight_bytes` as they would be, by estimate, with `bits` per weight."""
    scale = bits / checkpoint.bits
    return replace(
        checkpoint,
        weight_bytes=int(checkpoint.weight_bytes * scale),
        tensor_bytes=(),
        padding_bytes=0,
        quantization=None,
    )


def four_bits(checkpoint: Checkpoint) -> float:
    """Bits per weight, on average, of a checkpoint of the same shape in 4 bits."""
    parameters = 8 * checkpoint.weight_bytes / checkpoint.bits
    tables = (2 if checkpoint.lookup_bytes else 1) * checkpoint.vocab * checkpoint.hidden
    return (FOUR_BITS * (parameters - tables) + 16 * tables) / parameters


def _other_cards(task: PlanningTask) -> Iterator[Advice]:
    """More cards of the largest present kind, and one card of the catalog or else several of them."""
    gpus = [card for card in task.cards if card.kind == "gpu"]
    if not gpus:
        return
    largest = max(gpus, key=lambda card: card.total_bytes)
    # Another card in the same machine: its RAM stays what it is.
    catalog = [
        replace(card, node=largest.node, host_bytes=largest.host_bytes)
        for card in sorted(CARDS.values(), key=lambda card: card.total_bytes)
        if is_advised(card)
    ]
    more = _first_that_fits(task, [largest], WIDTHS[1:])
    one = _first_that_fits(task, catalog, WIDTHS[:1])
    if more is not None:
        yield more
    if one is not None:
        yield one
    if more is None and one is None:
        several = _first_that_fits(task, catalog, WIDTHS[1:])
        if several is not None:
            yield several


def _first_that_fits(task: PlanningTask, kinds: Sequence[Card], counts: Sequence[int]) -> Advice | None:
    """The smallest count, and then the first kind of card, with which the models fit."""
    for count in counts:
        for kind in kinds:
            cards = tuple(replace(kind, indices=(n,)) for n in range(count))
            if place_on_fewest_gpus(replace(task, cards=cards)) is not None:
                return Advice(f"on {'one' if count == 1 else count} {kind.name}", cards=cards)
    return None


def _smaller_settings(task: PlanningTask) -> Advice | None:
    """The first group of changes that fits, without those that turn out to be unnecessary."""
    for changes in _reductions(task):
        if _fits_with(task, changes):
            needed = _without_unneeded(task, changes)
            words = ", ".join(f"models.{model}.{key}: {value}" for model, key, value in needed)
            return Advice(f"with {words}", changes=tuple(needed))
    return None


def _without_unneeded(task: PlanningTask, changes: Sequence[Change]) -> Sequence[Change]:
    """The changes without those that can be taken back, tried one after the other."""
    needed = changes
    for change in changes:
        rest = [other for other in needed if other != change]
        if _fits_with(task, rest):
            needed = rest
    return needed


def _fits_with(task: PlanningTask, changes: Sequence[Change]) -> bool:
    changed = Advice("", changes=tuple(changes)).applied(task.recipe)
    return place_on_fewest_gpus(replace(task, recipe=changed)) is not None


def _reductions(task: PlanningTask) -> Iterator[list[Change]]:
    """Groups of changes, from mild to deep: turns, fewer sequences, shorter contexts, all of these, and
    layers in RAM."""
    models = {name: task.recipe.models[name] for name in task.checkpoints}
    turns: list[Change] = [
        (name, "residency", "auto") for name, m in models.items() if m.residency == "resident"
    ]
    if turns:
        yield turns
    sequences: list[Change] = []
    for sequences in _fewer_sequences(models):
        yield [*turns, *sequences]
    for share in CONTEXT_SHARES:
        contexts = _shorter_contexts(task.recipe, models, share)
        yield [*turns, *contexts]
        yield [*turns, *sequences, *contexts]
    for share in LAYER_SHARES:
        yield [*turns, *_layers_in_ram(task, share)]


def _layers_in_ram(task: PlanningTask, share: float) -> list[Change]:
    """`share` of the layers of llama.cpp's models on GPUs, and the others in RAM."""
    return [
        (name, "gpu_layers", int(share * checkpoint.layers))
        for name, checkpoint in task.checkpoints.items()
        if isinstance(task.recipe.models[name], LlamaCppModel) and task.kind(name) == "gpu"
    ]


def _fewer_sequences(models: dict[str, Model]) -> Iterator[list[Change]]:
    """Ever fewer whole contexts in the KV caches, down to one. Models with fewer are not changed."""
    contexts = {name: kv_cache_tokens(m) // m.context_tokens for name, m in models.items()}
    for count in range(max(contexts.values(), default=1) - 1, 0, -1):
        larger = [name for name, most in contexts.items() if most > count]
        yield [_with_sequences(name, models[name], count) for name in larger]


def _with_sequences(name: str, model: Model, count: int) -> Change:
    if getattr(model, "kv_tokens", None):
        return name, "kv_tokens", count * model.context_tokens
    return name, "concurrency", count


def _shorter_contexts(recipe: Recipe, models: dict[str, Model], share: float) -> list[Change]:
    """Contexts of `share` of the present tokens, but long enough for the longest answer."""
    changes: list[Change] = []
    for name, model in models.items():
        least = recipe.longest_answer(name) + LEAST_PROMPT
        tokens = max(int(model.context_tokens * share), least)
        rounded_up = -(-tokens // CONTEXT_STEP) * CONTEXT_STEP
        if rounded_up < model.context_tokens:
            changes.append((name, "context_tokens", rounded_up))
    return changes


def _fewer_bits(task: PlanningTask) -> Advice | None:
    """4-bit checkpoints for as few models as it takes, large ones first, if these are much smaller."""
    smaller = dict(task.checkpoints)
    bits: list[tuple[str, float]] = []
    for name in sorted(smaller, key=lambda name: -task.checkpoints[name].weight_bytes):
        checkpoint = task.checkpoints[name]
        fewer = four_bits(checkpoint)
        if fewer > LEAST_SAVING * checkpoint.bits:
            continue
        smaller[name] = with_bits(checkpoint, fewer)
        bits.append((name, fewer))
        if place_on_fewest_gpus(replace(task, checkpoints=smaller)) is not None:
            names = ", ".join(f"{name} (about {each:.1f} bits per weight)" for name, each in bits)
            return Advice(f"with 4-bit checkpoints of {names}", bits=tuple(bits))
    return None
