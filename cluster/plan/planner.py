"""(recipe, checkpoints, cards) -> Placement, or DoesNotFit with the sums and what would fit.

What fits on no single GPU is split over 2, 4 or 8 of a node, as few as it takes (`joining.py`).
`plan` is pure. `plan_recipe` first reads the facts of the weights: from files that are here, else
from the bundled shapes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from cluster.cards.card import Card
from cluster.cards.catalog import CARDS
from cluster.cards.tensor_parallel import WIDTHS, join_cards, left_out, obstacle, wanted, widths
from cluster.plan.card_fill import host_limit, usable_bytes
from cluster.plan.checkpoint import (
    Checkpoint,
    UnknownCheckpoint,
    from_folder,
    from_gguf,
    from_shapes,
    scripted,
)
from cluster.plan.footprint import footprint, gib, kv_tokens_of
from cluster.plan.placement import Placement
from cluster.plan.search import home, search_placement
from configs.errors import UserError
from configs.schema import LlamaCppModel, Model, Recipe, ScriptedModel, VllmModel
from configs.weights import HubFolder

LEAST_PROMPT = 512  # an advised context leaves so many tokens beside the longest answer
CONTEXT_STEP = 256
FOUR_BITS = 4.5  # of a 4-bit checkpoint on average, with its scales and its 16-bit tables

Change = tuple[str, str, int | str]  # model, key, value
Find = Callable[[str, Model], Path | None]


@dataclass(frozen=True, slots=True)
class Advice:
    """A change with which it fits. changes: per model, the keys of the recipe and their new values;
    bits: per model, the bits per weight of another checkpoint; cards: other cards, all of them."""

    text: str
    changes: tuple[Change, ...] = ()
    bits: tuple[tuple[str, float], ...] = ()
    cards: tuple[Card, ...] = ()

    def applied(self, recipe: Recipe) -> Recipe:
        """The recipe with the changes."""
        data = recipe.model_dump()
        for model, key, value in self.changes:
            data["models"][model][key] = value
        return Recipe.model_validate(data)


class DoesNotFit(UserError):
    """The models do not fit on the cards. `advice` holds changes with which they would, if any."""

    def __init__(self, message: str, *, advice: tuple[Advice, ...] = ()) -> None:
        super().__init__(message)
        self.advice = advice


def plan(recipe: Recipe, checkpoints: Mapping[str, Checkpoint], cards: Sequence[Card]) -> Placement:
    """Place every model that has a checkpoint; the others take no card.

    Raises:
        DoesNotFit: see there.
    """
    placement = _placed(recipe, checkpoints, cards)
    if placement is not None:
        return placement
    advice = tuple(_advice(recipe, checkpoints, cards))
    lines = list(_sums(recipe, checkpoints, cards))
    if not any(a.changes for a in advice):
        lines.append("Fewer sequences or shorter contexts are not enough.")
    lines += [f"It fits {a.text}." for a in advice]
    raise DoesNotFit("\n".join(lines), advice=advice)


def _placed(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], cards: Sequence[Card]
) -> Placement | None:
    for width in widths(recipe, checkpoints, cards):
        wide = join_cards(cards, width)
        if (placement := search_placement(recipe, checkpoints, wide)) is not None:
            return replace(placement, left_out=left_out(cards, wide))
    return None


def plan_recipe(recipe: Recipe, cards: Sequence[Card], find: Find | None = None) -> Placement:
    """Place the models of `recipe`. `find` gives the weights of a model that are here already.

    Raises:
        DoesNotFit: see there.
        UnknownCheckpoint: neither files nor a bundled shape tell how large a model is.
    """
    return plan(recipe, checkpoints_of(recipe, find), cards)


def checkpoints_of(recipe: Recipe, find: Find | None = None) -> dict[str, Checkpoint]:
    """The facts of the weights of all models that have weights."""
    return {
        name: checkpoint
        for name, model in recipe.models.items()
        if (checkpoint := checkpoint_of(name, model, find or _local)) is not None
    }


def checkpoint_of(name: str, model: Model, find: Find) -> Checkpoint | None:
    """The facts of one model's weights; None if it has none."""
    if isinstance(model, ScriptedModel) and model.weight_bytes is not None:
        return scripted(model.weight_bytes)
    if not isinstance(model, LlamaCppModel | VllmModel):
        return None
    path = find(name, model)
    if path is not None:
        return from_gguf(path) if path.is_file() else from_folder(path)
    for source in model.weights:
        if isinstance(source, HubFolder) and (shape := from_shapes(source.hub)):
            return shape
    raise UnknownCheckpoint(
        f"how large model {name!r} is cannot be told before its weights are here "
        "(run `slimmoa models RECIPE --fetch`), for no shape of it is bundled"
    )


def _local(_name: str, model: Model) -> Path | None:
    for source in getattr(model, "weights", ()):
        path = Path(getattr(source, "path", ""))
        if getattr(source, "path", None) and path.exists():
            return path
    return None


def _sums(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], cards: Sequence[Card]
) -> Iterator[str]:
    yield f"The models of {recipe.name!r} do not fit, not even taking turns."
    for name, checkpoint in checkpoints.items():
        model = recipe.models[name]
        needs = footprint(model, checkpoint, home(model, cards))
        rest = needs.activations + needs.residue
        yield (
            f"  {name}: {gib(needs.awake)} = weights {gib(needs.weights)} + KV {gib(needs.kv)} "
            f"({kv_tokens_of(model)} tokens) + runtime {gib(rest)}; "
            f"asleep {gib(needs.asleep)} on the card and {gib(needs.parked)} of host RAM"
        )
    for card in cards:
        limit = host_limit(recipe, card)
        host = "" if limit == float("inf") else f", and {gib(limit)} of host RAM to sleep in"
        yield f"  {card.name}: {gib(usable_bytes(recipe, card))} of {gib(card.total_bytes)}{host}"
    yield from _split_sums(recipe, checkpoints, cards)


def _split_sums(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], cards: Sequence[Card]
) -> Iterator[str]:
    for width in (width for width in wanted(recipe, cards) if width > 1):
        if why := obstacle(recipe, checkpoints, cards, width):
            yield f"They cannot be split over {width} GPUs: {why}."
            continue
        names = [name for name in checkpoints if home(recipe.models[name], cards) == "gpu"]
        needs = {n: footprint(recipe.models[n], checkpoints[n], "gpu", width) for n in names}
        takes = ", ".join(f"{name} {gib(need.awake)}" for name, need in needs.items())
        room = {c.name: usable_bytes(recipe, c) for c in join_cards(cards, width) if c.kind == "gpu"}
        have = ", ".join(f"{name} has {gib(usable)}" for name, usable in room.items())
        yield f"Nor split over {width} GPUs, where the runtime counts on each: {takes}; {have}."


def _advice(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], cards: Sequence[Card]
) -> Iterator[Advice]:
    """The nearest change of the recipe, if one is enough; else of the checkpoint. And cards."""
    advice = _smaller_recipe(recipe, checkpoints, cards) or _fewer_bits(recipe, checkpoints, cards)
    if advice is not None:
        yield advice
    gpus = [card for card in cards if card.kind == "gpu"]
    if not gpus:
        return
    largest = max(gpus, key=lambda card: card.total_bytes)
    catalog = sorted(CARDS.values(), key=lambda card: card.total_bytes)
    more = _first_that_fits(recipe, checkpoints, [largest], WIDTHS[1:])
    one = _first_that_fits(recipe, checkpoints, catalog, WIDTHS[:1])
    other = None if more or one else _first_that_fits(recipe, checkpoints, catalog, WIDTHS[1:])
    yield from (found for found in (more, one, other) if found is not None)


def _first_that_fits(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    kinds: Sequence[Card],
    counts: Sequence[int],
) -> Advice | None:
    for count, kind in product(counts, kinds):
        cards = tuple(replace(kind, indices=(n,)) for n in range(count))
        if _placed(recipe, checkpoints, cards) is not None:
            return Advice(f"on {'one' if count == 1 else count} {kind.name}", cards=cards)
    return None


def _smaller_recipe(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], cards: Sequence[Card]
) -> Advice | None:
    for changes in _cuts(recipe, list(checkpoints)):
        if _fits(recipe, changes, checkpoints, cards):
            # Take back what was not needed, so that what remains is the nearest change.
            for change in list(changes):
                rest = [other for other in changes if other != change]
                if _fits(recipe, rest, checkpoints, cards):
                    changes = rest
            words = ", ".join(f"models.{model}.{key}: {value}" for model, key, value in changes)
            return Advice(f"with {words}", changes=tuple(changes))
    return None


def _fits(
    recipe: Recipe,
    changes: Sequence[Change],
    checkpoints: Mapping[str, Checkpoint],
    cards: Sequence[Card],
) -> bool:
    changed = Advice("", changes=tuple(changes)).applied(recipe)
    return _placed(changed, checkpoints, cards) is not None


def _cuts(recipe: Recipe, names: Sequence[str]) -> Iterator[list[Change]]:
    """Ever deeper cuts: turns, fewer sequences, shorter contexts, then all of it."""
    models = {name: recipe.models[name] for name in names}
    turns: list[Change] = [
        (name, "residency", "auto") for name, m in models.items() if m.residency == "resident"
    ]
    if turns:
        yield list(turns)
    whole = {n: kv_tokens_of(m) // m.context_tokens for n, m in models.items()}
    sequences: list[Change] = []
    for count in range(max(whole.values(), default=1) - 1, 0, -1):
        more = {name: models[name] for name, most in whole.items() if most > count}
        sequences = [_fewer(name, model, count) for name, model in more.items()]
        yield [*turns, *sequences]
    for share in (0.75, 0.5, 0.25):
        shorter: list[Change] = []
        for name, model in models.items():
            least = recipe.longest_answer(name) + LEAST_PROMPT
            wanted = max(int(model.context_tokens * share), least)
            context = -(-wanted // CONTEXT_STEP) * CONTEXT_STEP
            if context < model.context_tokens:
                shorter.append((name, "context_tokens", context))
        yield [*turns, *shorter]
        yield [*turns, *sequences, *shorter]


def _fewer(name: str, model: Model, count: int) -> Change:
    if getattr(model, "kv_tokens", None):
        return name, "kv_tokens", count * model.context_tokens
    return name, "concurrency", count


def _fewer_bits(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], cards: Sequence[Card]
) -> Advice | None:
    """4-bit checkpoints of those models that have more bits, the largest first."""
    smaller, bits = dict(checkpoints), []
    for name in sorted(checkpoints, key=lambda name: -checkpoints[name].weight_bytes):
        if checkpoints[name].bits > 2 * FOUR_BITS - 1:
            smaller[name] = with_bits(checkpoints[name], FOUR_BITS)
            bits.append((name, FOUR_BITS))
            if _placed(recipe, smaller, cards) is not None:
                names = ", ".join(name for name, _ in bits)
                text = f"with 4-bit checkpoints (about {FOUR_BITS} bits per weight) of {names}"
                return Advice(text, bits=tuple(bits))
    return None


def with_bits(checkpoint: Checkpoint, bits: float) -> Checkpoint:
    """About what another quantization of the same model would be."""
    scale = bits / checkpoint.bits
    return replace(checkpoint, weight_bytes=int(checkpoint.weight_bytes * scale))
