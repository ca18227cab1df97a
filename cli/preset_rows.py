"""The package's recipes on given cards, the best first: what `slimmoa presets` and `--auto` look at."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from actors.engines.installed import missing_engines
from actors.weights.download import gigabytes
from actors.weights.lookup import WeightsState, find_here, weights_states
from cli.console import show_remarks
from cluster.cards.card import CPU_BANDWIDTH, GIB, Card, this_machine
from cluster.cards.catalog import card_by_name
from cluster.cards.detect import detect_cards
from cluster.plan.task import choose_cards
from cluster.plan.verdict import Fit, Verdict, duration, judge
from configs.load import load, presets
from configs.preset_uses import PresetUse, use_of
from configs.schema import Recipe, VllmModel

SHOWN_RAM = 0.95
"""Share of the RAM that a machine is sold with which its programs see."""
ORDER = {"gpu": 0, "cpu": 0, "fallback": 1, "experiment": 2, "form": 3}
"""Kinds of use, those first that answer everyday questions best."""

PATIENCE_S = 180.0
"""Longest predicted answer, in seconds, of a recipe that `slimmoa serve --auto` takes by itself. People
who talk with a model do not wait for longer. A stronger recipe that is slower is named instead."""


@dataclasses.dataclass(frozen=True, slots=True)
class PresetRow:
    """One recipe of the package, looked at for certain cards."""

    name: str
    recipe: Recipe
    use: PresetUse
    verdict: Verdict
    needs: str
    """What is missing before it can run, in words that complete "needs ..."; "" if nothing is."""
    weights: str
    """How many bytes of weights are here or are to be fetched, in words."""
    here: bool
    """Whether all weights are on this machine."""

    @property
    def can_run(self) -> bool:
        """Whether it can be served on the cards, once its weights are here."""
        return self.verdict.fit <= Fit.TURNS and not self.needs and self.use.kind != "form"

    @property
    def is_choice(self) -> bool:
        """Whether `slimmoa serve --auto` may take it: it can run, and it is for everyday questions."""
        return self.can_run and self.use.kind in ("gpu", "cpu", "fallback")

    @property
    def is_quick(self) -> bool:
        """Whether an answer takes no longer than PATIENCE_S, as far as that is predicted."""
        return (self.verdict.answer_s or 0.0) <= PATIENCE_S

    @property
    def words(self) -> str:
        """What people read about it, in one line."""
        if self.use.kind == "form":
            return "form to fill in: it names other servers"
        if not self.needs:
            return self.verdict.words
        if self.verdict.fit <= Fit.TURNS:
            return f"needs {self.needs}; then {self.verdict.words.removeprefix('fits, ')}"
        if self.verdict.fit is Fit.NO:
            return self.verdict.words
        return f"needs {self.needs}"

    def as_json(self) -> dict[str, Any]:
        """The row as plain data."""
        return {
            "preset": self.name,
            "description": self.recipe.description,
            "for": self.use.kind,
            "fit": self.verdict.fit.name.lower(),
            "words": self.words,
            "answer_s": self.verdict.answer_s,
            "needs": self.needs or None,
            "can_run": self.can_run,
            "weights": self.weights,
            "weights_here": self.here,
        }


def named_cards(names: Sequence[str], ram_gb: float | None) -> list[Card]:
    """The cards that options name; without names and RAM, an empty list.

    Args:
        names: names of the catalog's cards.
        ram_gb: GB of RAM of the machine. Without names, that is a machine without a GPU, with as many
            cores as this one.

    Raises:
        UnknownCard: the catalog does not have a card.
    """
    cards = [card_by_name(name, n) for n, name in enumerate(names)]
    if ram_gb is None:
        return cards
    shown = int(ram_gb * SHOWN_RAM * GIB)
    if cards:
        return [dataclasses.replace(card, host_bytes=shown) for card in cards]
    cpu = this_machine()
    return [
        dataclasses.replace(
            cpu,
            total_bytes=shown,
            host_bytes=shown,
            bandwidth=CPU_BANDWIDTH,
            node="",
            remarks=(),
        )
    ]


def rows_here(*, with_remarks: bool = False) -> list[PresetRow]:
    """The package's recipes on this machine, the best first.

    Args:
        with_remarks: whether to print what a person should know of the machine's cards.

    Raises:
        UserError: the cards of this machine cannot be told or used.
    """
    cards = detect_cards()
    if with_remarks:
        show_remarks(remark for card in cards for remark in card.remarks)
    return preset_rows(cards, engines=True)


def preset_rows(cards: Sequence[Card], *, engines: bool) -> list[PresetRow]:
    """The package's recipes on these cards, the best first.

    "Best" is: it can run; it is for everyday questions; all of its models stay awake; it is made for
    the kind of machine, and there for the largest card or RAM; it answers sooner.

    Args:
        cards: the cards.
        engines: whether an engine that is not installed here counts.
    """
    rows = [_row(name, cards, engines=engines) for name in presets()]
    return sorted(rows, key=lambda row: _rank(row, cards))


def choices(rows: Sequence[PresetRow]) -> list[PresetRow]:
    """The rows that `slimmoa serve --auto` may take, in the order in which it tries them: the best of
    those that answer within PATIENCE_S first, then the others, the quickest first.

    Args:
        rows: the recipes, the best first.
    """
    may = [row for row in rows if row.is_choice]
    slow = [row for row in may if not row.is_quick]
    return [row for row in may if row.is_quick] + sorted(slow, key=lambda r: r.verdict.answer_s or 0.0)


def stronger(rows: Sequence[PresetRow], chosen: PresetRow) -> str:
    """The best recipe, in words that follow a sentence, if it is not the one that is taken because it
    answers too slowly; else "".

    Args:
        rows: the recipes, the best first.
        chosen: the recipe that is taken.
    """
    best = next(row for row in rows if row.is_choice)
    if best.is_quick or best is chosen:
        return ""
    seconds = duration(best.verdict.answer_s or 0.0)
    return f"; stronger, {seconds} an answer: `slimmoa serve {best.name}`"


def _row(name: str, cards: Sequence[Card], *, engines: bool) -> PresetRow:
    recipe, use = load(name), use_of(name)
    verdict = judge(recipe, choose_cards(recipe, cards), find_here)
    states = weights_states(recipe).values()
    here = all(state.here for state in states)
    needs = list(_needs(recipe, use, cards, engines=engines))
    return PresetRow(name, recipe, use, verdict, "; ".join(needs), _weights(states), here)


def _weights(states: Collection[WeightsState]) -> str:
    missing = [state for state in states if not state.here]
    size = sum(state.size_bytes or 0 for state in (missing or states))
    if not missing:
        return f"{gigabytes(size)} here" if states else "none"
    if not size:
        return "not here"
    least = "" if all(state.size_bytes for state in missing) else "more than "
    return f"{least}{gigabytes(size)} to fetch"


def _needs(recipe: Recipe, use: PresetUse, cards: Sequence[Card], *, engines: bool) -> list[str]:
    has_gpu = any(card.kind == "gpu" for card in cards)
    with_vllm = any(isinstance(model, VllmModel) for model in recipe.models.values())
    if with_vllm and not has_gpu and use.kind == "gpu":
        return ["a GPU, and there is none"]
    return list(missing_engines(recipe, gpu=has_gpu)) if engines else []


def _rank(row: PresetRow, cards: Sequence[Card]) -> tuple[Any, ...]:
    gpus = [float(card.capability or 0) for card in cards if card.kind == "gpu"]
    home = "gpu" if gpus else "cpu"
    fits = row.verdict.fit <= Fit.TURNS
    return (
        not row.can_run,
        ORDER[row.use.kind],
        not fits or bool(row.needs),
        row.verdict.fit,
        row.use.kind != home,
        -row.use.gib,
        -row.use.capability if gpus and min(gpus) >= row.use.capability else 0.0,
        row.verdict.answer_s or 0.0,
        row.name,
    )
