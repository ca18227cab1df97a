"""The mixture: layers of proposers, then the aggregator. No Ray, no HTTP.

Follows MoA (Wang et al., 2024): layer n sees the proposals of layer n-1 as references, the aggregator
those of the last layer.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from actors.engine import Message
from actors.errors import EngineUnavailable
from configs.schema import Layer, Recipe, Sampling
from serve_app.aggregate import Aggregation, aggregate
from serve_app.budget import Models, check_conversation
from serve_app.events import AnswerDone, Event, ProposalDone, Started
from serve_app.layer import LayerTask, Place, propose
from serve_app.record import Record


async def answer(
    messages: Sequence[Message],
    recipe: Recipe,
    models: Models,
    *,
    sampling: Sampling | None = None,
    seed: int | None = None,
) -> AsyncGenerator[Event]:
    """Answer a conversation with the mixture. Closing it cancels every engine call.

    1. The conversation must fit the aggregator, else ContextTooLong, before anything is spent.
    2. Each layer runs. Quorum met: its proposals are the next references. Not met: in the first layer
       an error, in a later one the last references stay.
    3. The aggregator answers; if it fails before its first token the next one does, and at last the
       most trusted reference stands in.

    sampling: the aggregator's, instead of the recipe's. seed: fixes the order of references and the
    seeds of all calls; without it the order is drawn.

    Raises:
        SlimMoAError: ContextTooLong, QuorumNotMet, DeadlineExceeded, Overloaded; EngineError after
            the first token.
    """
    loop, limits = asyncio.get_running_loop(), recipe.limits
    deadline = loop.time() + limits.deadline_s
    sampling = sampling or recipe.aggregator.sampling
    record = Record(seed=random.getrandbits(31) if seed is None else seed)
    await _preflight(messages, recipe, models, sampling)
    yield Started(record.seed)
    references: list[ProposalDone] = []
    for number, layer in enumerate(recipe.layers, 1):
        began = loop.time()
        task = LayerTask(
            number=number,
            places=_places(layer, number, seed),
            messages=messages,
            references=record.ordered(references, number),
            deadline=min(deadline, began + limits.layer_deadline_s),
        )
        proposals: list[ProposalDone] = []
        async with aclosing(propose(task, recipe, models)) as events:
            async for event in events:
                record.note(event)
                if isinstance(event, ProposalDone):
                    proposals.append(event)
                yield event
        yield record.stage(f"layer {number}", loop.time() - began)
        if len(proposals) >= limits.quorum:
            references = sorted(proposals, key=lambda p: p.place)
        elif number == 1:
            raise record.no_quorum(len(proposals), limits.quorum)
    aggregation = Aggregation(
        messages=messages,
        models=(recipe.aggregator.model, *recipe.aggregator.fallbacks),
        references=record.ordered(references, len(recipe.layers) + 1),
        best=references[0],
        sampling=sampling,
        deadline=deadline,
        first_token_timeout_s=recipe.aggregator.first_token_timeout_s,
    )
    began = loop.time()
    async with aclosing(aggregate(aggregation, recipe, models)) as events:
        async for event in events:
            record.note(event)
            yield event
    yield record.stage("aggregator", loop.time() - began)
    yield AnswerDone(record.summary())


async def direct(
    messages: Sequence[Message], recipe: Recipe, models: Models, model: str, sampling: Sampling
) -> AsyncGenerator[Event]:
    """Answer with one of the recipe's models alone; the events are those of an aggregator.

    Raises:
        SlimMoAError: ContextTooLong, DeadlineExceeded, Overloaded, EngineError, EngineUnavailable.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    await check_conversation(models, recipe, model, messages, sampling.max_tokens)
    record = Record(seed=sampling.seed or 0)
    yield Started(record.seed)
    alone = Aggregation(
        messages=messages,
        models=(model,),
        references=(),
        best=None,
        sampling=sampling,
        deadline=began + recipe.limits.deadline_s,
        first_token_timeout_s=None,
    )
    async with aclosing(aggregate(alone, recipe, models)) as events:
        async for event in events:
            record.note(event)
            yield event
    yield record.stage("direct", loop.time() - began)
    yield AnswerDone(record.summary())


async def _preflight(
    messages: Sequence[Message], recipe: Recipe, models: Models, sampling: Sampling
) -> None:
    references = sum(p.samples for p in recipe.layers[-1].proposers)
    try:
        async with asyncio.timeout(recipe.limits.keepalive_s):
            model = recipe.aggregator.model
            await check_conversation(models, recipe, model, messages, sampling.max_tokens, references)
    except (TimeoutError, EngineUnavailable):
        pass  # not the request's fault, and a fallback may still answer


def _places(layer: Layer, number: int, seed: int | None) -> list[Place]:
    places: list[Place] = []
    for proposer in layer.proposers:
        for sample in range(proposer.samples):
            own = proposer.sampling.seed
            if seed is not None:
                own = random.Random(f"{seed}/{number}/{len(places)}").getrandbits(31)
            elif own is not None:
                own += sample
            sampling = proposer.sampling.model_copy(update={"seed": own})
            places.append(Place(len(places), proposer.model, sampling))
    return places
