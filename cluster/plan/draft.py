"""Plans a new recipe while it is written, and chooses how many questions it takes at a time. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.cards.card import Card
from cluster.plan.checkpoint import Checkpoint
from cluster.plan.planner import plan
from cluster.plan.task import PlanningTask
from cluster.plan.verdict import Fit, Verdict, judge_task
from configs.load import parse
from configs.new_recipe import Choices, NewModel, recipe_text
from configs.schema import Recipe

QUESTIONS = (8, 4, 2, 1)
"""Questions at a time on a GPU, the most wanted first."""
CPU_QUESTIONS = (1,)
LEAST_DEADLINE_S = 300
TIMES = 3
"""The deadline of an answer is this many times the predicted seconds, because questions can be long."""
DEADLINE_STEP_S = 60


@dataclass(frozen=True, slots=True)
class Draft:
    """A recipe that was checked and planned."""

    text: str
    """Its YAML text."""
    recipe: Recipe
    verdict: Verdict
    """What the plan says."""


def draft(
    models: Sequence[NewModel],
    choices: Choices,
    checkpoints: Mapping[str, Checkpoint],
    cards: Sequence[Card],
) -> Draft:
    """The recipe with the most questions at a time with which all models stay awake; or, if they cannot
    all stay awake, with the most questions that fit in turns.

    Args:
        models: the models.
        choices: the choices; `concurrency` and `deadline_s` are chosen here.
        checkpoints: facts about the weights, by the model's name.
        cards: the cards to plan for.

    Raises:
        DoesNotFit: the models do not fit even with one question at a time; the message has the sums.
        CannotRun: no card can run the numbers of a model's weights.
    """
    found: list[Draft] = []
    for count in QUESTIONS if choices.gpu else CPU_QUESTIONS:
        tried = _try(models, replace(choices, concurrency=count), checkpoints, cards)
        if tried.verdict.fit is Fit.AWAKE:
            return tried
        found.append(tried)
    fitting = [each for each in found if each.verdict.fit < Fit.NO]
    if fitting:
        return fitting[0]
    plan(PlanningTask(found[-1].recipe, checkpoints, cards))  # raises the error with the sums
    raise AssertionError("the plan fits, and its verdict says that it does not")


def _try(
    models: Sequence[NewModel],
    choices: Choices,
    checkpoints: Mapping[str, Checkpoint],
    cards: Sequence[Card],
) -> Draft:
    untimed = _recipe(models, choices)
    seconds = judge_task(PlanningTask(untimed, checkpoints, cards)).answer_s or 0
    steps = -(-int(TIMES * seconds) // DEADLINE_STEP_S)
    timed = replace(choices, deadline_s=min(86_400, max(LEAST_DEADLINE_S, steps * DEADLINE_STEP_S)))
    verdict = judge_task(PlanningTask(_recipe(models, timed), checkpoints, cards))
    where = " + ".join(card.name for card in cards)
    final = replace(timed, header=(*timed.header, f"Planned on {where}: {verdict.words} (predicted)."))
    text = recipe_text(models, final)
    return Draft(text, parse(text, folder=Path()), verdict)


def _recipe(models: Sequence[NewModel], choices: Choices) -> Recipe:
    return parse(recipe_text(models, choices), folder=Path())
