"""The mixture: layers of proposers, then the aggregator. No Ray, no HTTP.

Follows MoA (Wang et al., 2024): layer n sees the proposals of layer n-1 as references, the aggregator
those of the last layer.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from actors.engine import Message
from configs.errors import EngineError, EngineUnavailable
from configs.schema import Layer, Recipe, Sampling
from serve_app.mixture.aggregate import Aggregation, aggregate
from serve_app.mixture.context_budget import Tokenizers, check_conversation
from serve_app.mixture.events import AnswerDone, Event, ProposalDone, ProposalDropped, Started
from serve_app.mixture.layer import LayerTask, Place, propose
from serve_app.mixture.retry import Replicated
from serve_app.mixture.summary import SummaryBuilder


async def answer(
    messages: Sequence[Message],
    recipe: Recipe,
    models: Replicated,
    *,
    sampling: Sampling | None = None,
    seed: int | None = None,
    streamed: bool = True,
    watched: bool = True,
) -> AsyncGenerator[Event]:
    """Answer a conversation with the mixture. Closing it cancels every engine call.

    1. The conversation must fit the aggregator, else ContextTooLong, before anything is spent.
    2. Each layer runs. Quorum met: its proposals are the next references. Not met: in the first layer
       an error, in a later one the last references stay and its proposals are dropped.
    3. The aggregator answers; if it fails before its first text the next one does, and at last the
       most trusted reference stands in.

    Once the deadline has passed no call starts any more, and those under way end. An answer that has
    begun ends there, cut; else the most trusted reference is the answer, for a proposal is worth more
    to the user than a 504. That is left for when there is no proposal at all.

    sampling: the aggregator's, instead of the recipe's. seed: fixes the order of references and the
    seeds of all calls; without it the order is drawn. live: the answer is read as it grows. watched:
    give `ProposalDelta` events.

    Raises:
        RequestError: ContextTooLong, QuorumNotMet, DeadlineExceeded, Overloaded; EngineError after
            the first text.
    """
    limits = recipe.limits
    deadline = asyncio.get_running_loop().time() + limits.deadline_s
    sampling = sampling or recipe.aggregator.sampling
    if seed is not None:
        sampling = sampling.model_copy(update={"seed": seed})
    record = SummaryBuilder(seed=random.getrandbits(31) if seed is None else seed)
    await _preflight(messages, recipe, models, sampling)
    yield Started(record.seed)
    references: list[ProposalDone] = []
    for number, layer in enumerate(recipe.layers, 1):
        task = LayerTask(
            number=number,
            places=_places(layer, number, record.seed, fixed=seed is not None),
            messages=messages,
            references=record.ordered(references, number),
            deadline=deadline,
            watched=watched,
        )
        proposals: dict[int, ProposalDone] = {}
        stage = record.stage(f"layer {number}", propose(task, recipe, models))
        async with aclosing(stage) as events:
            async for event in events:
                if isinstance(event, ProposalDone):
                    proposals[event.place] = event
                elif isinstance(event, ProposalDropped):
                    proposals.pop(event.place, None)
                yield event
        if number == 1 and len(proposals) < limits.quorum:
            raise record.no_quorum(len(proposals), limits.quorum)
        if proposals:
            references = [proposals[place] for place in sorted(proposals)]
    aggregation = Aggregation(
        role="aggregator",
        messages=messages,
        models=recipe.aggregators,
        references=record.ordered(references, recipe.stages),
        best=references[0],
        sampling=sampling,
        deadline=deadline,
        first_token_timeout_s=recipe.aggregator.first_token_timeout_s,
        streamed=streamed,
    )
    async with aclosing(record.stage("aggregator", aggregate(aggregation, recipe, models))) as events:
        async for event in events:
            yield event
    yield AnswerDone(record.summary())


async def direct(
    messages: Sequence[Message],
    recipe: Recipe,
    models: Replicated,
    model: str,
    sampling: Sampling,
    *,
    streamed: bool = True,
) -> AsyncGenerator[Event]:
    """Answer with one of the recipe's models alone; the events are those of an aggregator.

    live: the answer is read as it grows.

    Raises:
        RequestError: ContextTooLong, DeadlineExceeded, Overloaded, EngineError, EngineUnavailable.
    """
    record = SummaryBuilder(seed=sampling.seed or 0)
    yield Started(record.seed)
    alone = Aggregation(
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
    async with aclosing(record.stage("direct", aggregate(alone, recipe, models))) as events:
        async for event in events:
            yield event
    yield AnswerDone(record.summary())


async def _preflight(
    messages: Sequence[Message], recipe: Recipe, models: Tokenizers, sampling: Sampling
) -> None:
    references = recipe.samples[-1]
    try:
        async with asyncio.timeout(min(recipe.limits.keepalive_s, recipe.limits.deadline_s)):
            model = recipe.aggregator.model
            await check_conversation(models, recipe, model, messages, sampling.max_tokens, references)
    except (TimeoutError, EngineError, EngineUnavailable):
        pass  # not the request's fault, and a fallback may still answer


def _places(layer: Layer, number: int, seed: int, *, fixed: bool) -> list[Place]:
    """The layer's samples, one place each. fixed: their seeds come from `seed`, whatever the recipe
    says; otherwise only where a model stands several times without a seed, so that none is a copy."""
    times = layer.samples_by_model()
    places: list[Place] = []
    placed = Counter[str]()
    for proposer in layer.proposers:
        for sample in range(proposer.samples):
            own = proposer.sampling.seed
            if fixed or (own is None and times[proposer.model] > 1):
                own = place_seed(seed, number, proposer.model, placed[proposer.model])
            elif own is not None:
                own += sample
            sampling = proposer.sampling.model_copy(update={"seed": own})
            places.append(Place(len(places), proposer.model, sampling))
            placed[proposer.model] += 1
    return places


def place_seed(seed: int, layer: int, model: str, sample: int) -> int:
    """The seed of a proposer's call in an answer with this seed. sample: its number among the model's
    own in the layer, from 0. Who else stands in the layer has no part in it, so that a mixture with a
    proposer more or less asks the others for the very same proposals."""
    return random.Random(f"{seed}/{layer}/{model}/{sample}").getrandbits(31)
