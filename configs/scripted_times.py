"""How long scripted models take for one answer, when nothing else is asked. Pure.

A scripted model says exactly when each word comes, so a check can tell whether a recipe's deadlines
leave its models enough time. Of every other engine the plan predicts the speed
(`cluster/plan/predict.py`); here it takes no time.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heapreplace

from configs.models import ScriptedModel
from configs.sampling import Sampling
from configs.schema import Layer, Recipe


@dataclass(frozen=True, slots=True)
class SampleTime:
    """When a sample of a layer is there."""

    proposer: int
    """Number of the proposer in its layer, from 0."""
    model: str
    end_s: float
    """Seconds from the start of the layer to the sample's last word."""


def words(model: ScriptedModel, sampling: Sampling) -> int:
    """Most words of an answer: those of the script, up to the call's limit. 0 if the answer is
    empty."""
    if model.text is None:
        count = model.tokens
    else:
        text = model.text
        for stop in sampling.stop:
            text = text.split(stop)[0]
        count = len(text.split())
    return min(count, sampling.answer_tokens)


def seconds(model: ScriptedModel, sampling: Sampling) -> float:
    """Seconds of one call, from its start to its last word."""
    count = words(model, sampling)
    return model.first_token_s + (count - 1) * model.token_s if count else 0.0


def layer_times(recipe: Recipe, layer: Layer) -> list[SampleTime]:
    """When each sample of a layer is there, the earliest first.

    A replica runs `concurrency` calls at a time and the others in their order. Several replicas count
    as one that gets its even share of the calls, rounded up. A member that answers first (`first`) is
    taken to be unsure, so that the others begin when it has ended.
    """
    queues: defaultdict[str, list[tuple[int, Sampling]]] = defaultdict(list)
    for number, proposer in enumerate(layer.proposers):
        queues[recipe.host(proposer.model)] += [(number, proposer.sampling)] * proposer.samples
    times: list[SampleTime] = []
    began_s = 0.0
    if recipe.first is not None and layer is recipe.layers[0]:
        best = recipe.host(layer.proposers[0].model)
        times += _queue_times(recipe, best, [queues[best].pop(0)], began_s)
        began_s = times[0].end_s
    times += [
        time for host, calls in queues.items() for time in _queue_times(recipe, host, calls, began_s)
    ]
    return sorted(times, key=lambda time: time.end_s)


def _queue_times(
    recipe: Recipe, host: str, calls: list[tuple[int, Sampling]], began_s: float
) -> Iterator[SampleTime]:
    model = recipe.models[host]
    places = [began_s] * model.concurrency * model.replicas.min
    for number, sampling in calls:
        took = seconds(model, sampling) if isinstance(model, ScriptedModel) else 0.0
        end_s = places[0] + took
        heapreplace(places, end_s)
        yield SampleTime(number, host, end_s)
