"""The mixture: layers of proposers, then the aggregator. No Ray, no HTTP.

Follows MoA (Wang et al., 2024): layer n sees the proposals of layer n-1 as references, the aggregator
those of the last layer.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from actors.engine import Message
from configs.errors import EngineError, EngineUnavailable
from configs.schema import Layer, Recipe, Sampling
from serve_app.mixture.aggregate import AggregationTask, aggregate
from serve_app.mixture.context_budget import PromptTask, check_conversation
from serve_app.mixture.events import (
    AnswerDone,
    Event,
    Missing,
    ProposalDone,
    ProposalDropped,
    Started,
)
from serve_app.mixture.layer import LayerTask, Sample, propose, quorum_error
from serve_app.mixture.models import Models
from serve_app.mixture.summary import SummaryBuilder


async def answer(
    messages: Sequence[Message],
    recipe: Recipe,
    models: Models,
    *,
    sampling: Sampling | None = None,
    seed: int | None = None,
    streamed: bool = True,
    stream_proposals: bool = True,
) -> AsyncGenerator[Event]:
    """Answer a conversation with the mixture. Closing the generator cancels every engine call.

    1. The conversation must fit the aggregator, else the request fails before any model works on it.
    2. Each layer runs.
       a. It meets the quorum: its proposals are the next references.
       b. The first layer misses the quorum: the request fails.
       c. A later layer misses the quorum: it takes its proposals back (`ProposalDropped`, even where
          `ProposalDone` came before), and the last references stay.
    3. The aggregator answers. If it fails before its first text, the next one answers, and if all fail,
       the best reference is the answer: that of the first proposer in the recipe that gave one.

    Once the deadline has passed, no call starts any more, and the calls in flight end. An answer that
    has begun ends there, with `cut`. Otherwise the best reference is the answer, since a proposal is
    worth more to the user than an error. Without any proposal the request fails.

    Args:
        sampling: the aggregator's, instead of the recipe's.
        seed: fixes the order of the references and the seeds of all calls; None draws the order and
            leaves the seeds to the recipe.
        streamed: whether the answer is read as it grows. If not, it comes in one delta.
        stream_proposals: whether proposals give `ProposalDelta` events.

    Raises:
        RequestError: ContextTooLong in step 1; QuorumNotMet, DeadlineExceeded, Overloaded or
            ContextTooLong in step 2b; the error of an aggregator that fails after its first text.
    """
    limits = recipe.limits
    deadline = asyncio.get_running_loop().time() + limits.deadline_s
    sampling = sampling or recipe.aggregator.sampling
    if seed is not None:
        sampling = sampling.model_copy(update={"seed": seed})
    summary = SummaryBuilder(seed=random.getrandbits(31) if seed is None else seed)
    await _check_fits(messages, recipe, models, sampling)  # 1
    yield Started(summary.seed)
    references: list[ProposalDone] = []
    for number, layer in enumerate(recipe.layers, 1):  # 2
        task = LayerTask(
            recipe=recipe,
            number=number,
            samples=_samples(layer, number, summary.seed, fixed=seed is not None),
            messages=messages,
            references=_shuffled_texts(references, summary.seed, number),
            deadline=deadline,
            stream_proposals=stream_proposals,
        )
        result = _LayerResult()
        stage = summary.stage(f"layer {number}", propose(task, models))
        async with aclosing(stage) as events:
            async for event in events:
                result.take(event)
                yield event
        if number == 1 and len(result.proposals) < limits.quorum:  # 2b
            raise quorum_error(result.missing, len(result.proposals), limits.quorum)
        if result.proposals:  # 2a; in 2c there are none
            references = [result.proposals[place] for place in sorted(result.proposals)]
    aggregation = AggregationTask(
        recipe=recipe,
        role="aggregator",
        messages=messages,
        models=recipe.aggregators,
        references=_shuffled_texts(references, summary.seed, recipe.stages),
        best=references[0],
        sampling=sampling,
        deadline=deadline,
        first_token_timeout_s=recipe.aggregator.first_token_timeout_s,
        streamed=streamed,
    )
    async with aclosing(_finish(aggregation, models, summary)) as events:  # 3
        async for event in events:
            yield event


async def direct(
    messages: Sequence[Message],
    recipe: Recipe,
    models: Models,
    model: str,
    sampling: Sampling,
    *,
    streamed: bool = True,
) -> AsyncGenerator[Event]:
    """Answer with one of the recipe's models alone; the events are those of an aggregator.

    Args:
        streamed: whether the answer is read as it grows. If not, it comes in one delta.

    Raises:
        RequestError: ContextTooLong, DeadlineExceeded, Overloaded, EngineError, EngineUnavailable.
    """
    summary = SummaryBuilder(seed=sampling.seed or 0)
    yield Started(summary.seed)
    alone = AggregationTask(
        recipe=recipe,
        role="direct",
        messages=messages,
        models=(model,),
        references=(),
        best=None,
        sampling=sampling,
        deadline=asyncio.get_running_loop().time() + recipe.limits.deadline_s,
        first_token_timeout_s=None,
        streamed=streamed,
    )
    async with aclosing(_finish(alone, models, summary)) as events:
        async for event in events:
            yield event


async def _finish(
    task: AggregationTask, models: Models, summary: SummaryBuilder
) -> AsyncGenerator[Event]:
    """Run the last stage, then give the summary."""
    async with aclosing(summary.stage(task.role, aggregate(task, models))) as events:
        async for event in events:
            yield event
    yield AnswerDone(summary.build())


@dataclass(slots=True)
class _LayerResult:
    """What the events of a layer leave."""

    proposals: dict[int, ProposalDone] = field(default_factory=dict)
    """By the place of their sample."""
    missing: list[Missing] = field(default_factory=list)

    def take(self, event: Event) -> None:
        if isinstance(event, ProposalDone):
            self.proposals[event.place] = event
        elif isinstance(event, ProposalDropped):
            self.proposals.pop(event.place, None)
            self.missing.append(event.missing)


async def _check_fits(
    messages: Sequence[Message], recipe: Recipe, models: Models, sampling: Sampling
) -> None:
    """Check that the aggregator can hold the conversation and as many references as it may get."""
    references = [""] * recipe.samples[-1]
    task = PromptTask(recipe, recipe.aggregator.model, messages, references, sampling.max_tokens)
    try:
        async with asyncio.timeout(min(recipe.limits.keepalive_s, recipe.limits.deadline_s)):
            await check_conversation(task, models)
    except (TimeoutError, EngineError, EngineUnavailable):
        pass  # the request is not to blame, and a fallback may still answer


def _shuffled_texts(proposals: Sequence[ProposalDone], seed: int, stage: int) -> list[str]:
    """The proposals' texts in the order that the seed draws for a stage, so that no model's proposals
    always stand in the same position."""
    texts = [p.text for p in proposals]
    random.Random(f"{seed}/{stage}").shuffle(texts)
    return texts


def _samples(layer: Layer, number: int, seed: int, *, fixed: bool) -> list[Sample]:
    """The samples of a layer.

    The sampling seed of a sample is

    1. drawn from `seed`, if it is `fixed`, or if the recipe gives none and the model has several
       samples in the layer, which would else be copies;
    2. else the recipe's, counted up by one for each sample of the proposer;
    3. else none.
    """
    samples_by_model = layer.samples_by_model()
    samples: list[Sample] = []
    so_far = Counter[str]()
    for proposer in layer.proposers:
        for n in range(proposer.samples):
            sampling_seed = proposer.sampling.seed
            if fixed or (sampling_seed is None and samples_by_model[proposer.model] > 1):  # 1
                sampling_seed = sample_seed(seed, number, proposer.model, so_far[proposer.model])
            elif sampling_seed is not None:  # 2
                sampling_seed += n
            sampling = proposer.sampling.model_copy(update={"seed": sampling_seed})
            samples.append(Sample(len(samples), proposer.model, sampling))
            so_far[proposer.model] += 1
    return samples


def sample_seed(seed: int, layer: int, model: str, number: int) -> int:
    """The sampling seed of a proposer's call in an answer with this seed.

    It does not depend on the other proposers of the layer. So a mixture with one proposer more or less
    asks the others for the very same proposals.

    Args:
        number: of the sample among the model's samples in the layer, from 0.
    """
    return random.Random(f"{seed}/{layer}/{model}/{number}").getrandbits(31)
