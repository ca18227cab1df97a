"""A prediction of speed: how long each card works for one question, and for those of a benchmark.

This is arithmetic with the constants of `speed.py`, not a measurement. Engines that share a card share
its bandwidth, so their times add up; cards work side by side. A joined card counts as fast as its GPUs
together: the time in which they exchange partial sums is left out.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from cluster.cards.card import Kind
from cluster.plan.checkpoint import Checkpoint
from cluster.plan.footprint import kv_bytes, kv_cache_tokens, value_bytes
from cluster.plan.llamacpp_memory import sequence_bytes
from cluster.plan.placement import PlacedReplica, Placement
from cluster.plan.speed import OPERATIONS, STOP_S, as_engine_reads, decode_rate, wake_s
from cluster.plan.task import PlanningTask
from configs.schema import LlamaCppModel, Model, Recipe, Sampling, VllmModel

PROMPTS = 805
"""Number of prompts in AlpacaEval. The lengths below are means, in tokens of cl100k."""
QUESTION_TOKENS = 36
"""Tokens of a prompt."""
PROPOSAL_TOKENS = 395
"""Tokens of a single model's answer: the mean of Qwen2-72B (347) and Llama-3.1-70B (444)."""
ANSWER_TOKENS = 423
"""Tokens of an answer of Shopee-SlimMoA-v1."""
INSTRUCTION_TOKENS = 150
"""Tokens of the aggregation prompt and the marks around all references together, as an estimate."""

USUAL_VALUE_BYTES = 2
"""Bytes of a value in the KV cache of an engine that has no setting for them."""


@dataclass(frozen=True, slots=True)
class PredictedSpeed:
    """The predicted speed of one replica."""

    model: str
    replica: int
    """Number among the model's replicas, from 0."""
    wake_s: float
    """Seconds to wake it, or to start it from disk if it is stopped between turns; 0 if it never leaves
    its card."""
    single: float
    """Tokens per second that it writes if one sequence runs."""
    batch: float
    """Tokens per second that it writes if `sequences` run, all together."""
    sequences: int
    """How many sequences run at a time."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The speed of all replicas, and how long one answer and the prompts of AlpacaEval take."""

    speeds: tuple[PredictedSpeed, ...]
    hours: float
    """Hours for all prompts of AlpacaEval."""
    swaps: int
    """How many turns begin in these hours."""
    answer_s: float
    """Seconds of one answer from its question to its last token, if nothing else is asked meanwhile."""
    stages_s: tuple[float, ...] = ()
    """Seconds of each of its stages: the layers, then the aggregator."""


@dataclass(frozen=True, slots=True)
class Load:
    """The calls of one model in one stage: a layer, or the aggregation."""

    model: str
    calls: int
    tokens_in: int
    """Mean tokens of a prompt."""
    tokens_out: int
    """Mean tokens of an answer. Of a model that thinks within a limit, the whole limit counts."""


def predict(task: PlanningTask, placement: Placement) -> Prediction | None:
    """The prediction for a placement of the task.

    None if the bandwidth or operations of a used card are unknown, or if some model takes no card.
    """
    cards = [placed.card for placed in placement.cards if placed.slots]
    if placement.elsewhere or not all(card.bandwidth and card.flops for card in cards):
        return None
    speeds = tuple(_speed(task, placement, replica) for replica in placement.replicas())
    stages_s, swaps = _busy_s(task, placement, PROMPTS)
    one_s, _ = _busy_s(task, placement, 1)
    return Prediction(speeds, sum(stages_s) / 3600, swaps, sum(one_s), tuple(one_s))


def too_slow(recipe: Recipe, prediction: Prediction) -> Iterator[str]:
    """Deadlines of the recipe that are shorter than what is predicted for them, each as a warning."""
    limits = recipe.limits
    for number, seconds in enumerate(prediction.stages_s[:-1], 1):
        if seconds > limits.layer_deadline_s:
            yield (
                f"limits.layer_deadline_s: {limits.layer_deadline_s:g} s, and layer {number} is "
                "predicted "
                f"to take {seconds:.0f} s here, so proposals are late; give about {2 * seconds:.0f} "
                f"s, or "
                "smaller models"
            )
    if prediction.answer_s > limits.deadline_s:
        yield (
            f"limits.deadline_s: {limits.deadline_s:g} s, and an answer is predicted to take "
            f"{prediction.answer_s:.0f} s here; give about {2 * prediction.answer_s:.0f} s"
        )
    first_s = recipe.aggregator.first_token_timeout_s
    wakes_s = [s.wake_s for s in prediction.speeds if s.model == recipe.host(recipe.aggregator.model)]
    if first_s is not None and wakes_s and min(wakes_s) > first_s:
        yield (
            f"aggregator.first_token_timeout_s: {first_s:g} s, and {recipe.aggregator.model!r} is "
            f"predicted to come back for its turn in {min(wakes_s):.0f} s; give more than that"
        )


def _busy_s(task: PlanningTask, placement: Placement, questions: int) -> tuple[list[float], int]:
    """Seconds of each stage until so many questions, asked together, are answered, and how many turns
    begin."""
    stages_s: list[float] = []
    swaps = 0
    for loads in _stages(task.recipe, questions):
        busy_s = [0.0] * len(placement.cards)
        for replica in placement.replicas():
            has_turn = False
            for load in (load for load in loads if load.model == replica.model):
                calls = _share(load.calls, replica, placement)
                if calls:
                    busy_s[replica.card] += _serving_s(task, placement, replica, load, calls)
                    has_turn = placement.slot(replica).takes_turns
            if has_turn:
                busy_s[replica.card] += _swap_s(placement, replica)
                swaps += 1
        stages_s.append(max(busy_s))
    return stages_s, swaps


def _share(calls: int, replica: PlacedReplica, placement: Placement) -> float:
    """How many of a model's calls one of its replicas gets."""
    replicas = len(placement.replicas(replica.model))
    return calls / replicas if calls >= replicas else float(replica.replica < calls)


def _stages(recipe: Recipe, questions: int) -> Iterator[list[Load]]:
    references = 0
    for layer in recipe.layers:
        read = references if layer.see is None else min(layer.see, references)
        yield [
            _load(p.model, questions * p.samples, read, p.sampling, PROPOSAL_TOKENS)
            for p in layer.proposers
        ]
        references = layer.samples
    yield list(_last_loads(recipe, questions, references))


def _last_loads(recipe: Recipe, questions: int, references: int) -> Iterator[Load]:
    """The calls of the last stage. `select_or_merge` is taken to merge, and `vote` to find answers."""
    aggregator, method = recipe.aggregator, recipe.aggregator.method
    if recipe.short_calls:
        calls, one = questions * recipe.short_calls, Sampling(max_tokens=1)
        yield _load(aggregator.model, calls, references, one, ANSWER_TOKENS)
    if method in ("merge", "select_or_merge"):
        read = references if method == "merge" else min(2, references)
        yield _load(aggregator.model, questions, read, aggregator.sampling, ANSWER_TOKENS)


def _load(model: str, calls: int, references: int, sampling: Sampling, tokens: int) -> Load:
    injected = references * PROPOSAL_TOKENS + (INSTRUCTION_TOKENS if references else 0)
    return Load(
        model=model,
        calls=calls,
        tokens_in=QUESTION_TOKENS + injected,
        tokens_out=min(tokens, sampling.answer_tokens) + (sampling.thinking_tokens or 0),
    )


def _return_s(placement: Placement, replica: PlacedReplica) -> float:
    """Seconds until a member of a slot of turns is back: to wake it, or to start it from disk."""
    card = placement.cards[replica.card].card
    if replica.stops:
        return replica.start_s
    return 0.0 if card.kind == "cpu" else wake_s(replica.weights, card)


def _swap_s(placement: Placement, replica: PlacedReplica) -> float:
    """Seconds until a member is back and, later, away again. Falling asleep takes about as long as
    waking."""
    back_s = _return_s(placement, replica)
    return back_s + (STOP_S if replica.stops else back_s)


def _batch_size(recipe: Recipe, model: str, tokens: int) -> int:
    """How many sequences of `tokens` the KV cache holds, at most the model's `concurrency`."""
    settings = recipe.models[model]
    return max(1, min(settings.concurrency, kv_cache_tokens(settings) // max(1, tokens)))


def _cache_bytes(
    model: Model, checkpoint: Checkpoint, kind: Kind, tokens: int, sequences: int
) -> float:
    """Bytes that a step reads and writes for sequences of `tokens`. A state is read and written."""
    if isinstance(model, LlamaCppModel):
        cache = sequence_bytes(model, checkpoint, tokens)
    elif isinstance(model, VllmModel):
        cache = kv_bytes(checkpoint, tokens, 0, value_bytes(model, checkpoint, kind))
    else:
        cache = kv_bytes(checkpoint, tokens, 0, USUAL_VALUE_BYTES)
    return float((cache + 2 * checkpoint.state_bytes) * sequences)


def _serving_s(
    task: PlanningTask, placement: Placement, replica: PlacedReplica, load: Load, calls: float
) -> float:
    """Seconds in which one replica serves its share of a load: so many calls."""
    checkpoint, model = task.checkpoints[load.model], task.recipe.models[load.model]
    card = as_engine_reads(model, checkpoint, placement.cards[replica.card].card)
    assert card.flops is not None
    most = _batch_size(task.recipe, load.model, load.tokens_in + load.tokens_out)
    sequences = min(most, math.ceil(calls))
    tokens = load.tokens_in + load.tokens_out // 2
    cache = _cache_bytes(model, checkpoint, card.kind, tokens, sequences)
    prefill_s = 2 * checkpoint.active_parameters * load.tokens_in / (OPERATIONS * card.flops)
    return calls * (prefill_s + load.tokens_out / decode_rate(checkpoint, card, sequences, cache))


def _speed(task: PlanningTask, placement: Placement, replica: PlacedReplica) -> PredictedSpeed:
    checkpoint, model = task.checkpoints[replica.model], task.recipe.models[replica.model]
    card = as_engine_reads(model, checkpoint, placement.cards[replica.card].card)
    tokens = QUESTION_TOKENS + PROPOSAL_TOKENS
    sequences = _batch_size(task.recipe, replica.model, tokens)
    single, batch = (
        decode_rate(checkpoint, card, n, _cache_bytes(model, checkpoint, card.kind, tokens // 2, n))
        for n in (1, sequences)
    )
    wake_s = _return_s(placement, replica) if placement.slot(replica).takes_turns else 0.0
    return PredictedSpeed(replica.model, replica.replica, wake_s, single, batch, sequences)
