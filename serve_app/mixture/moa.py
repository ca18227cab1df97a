"""The mixture: layers of proposers, then the aggregator. No Ray, no HTTP.

The mixture follows MoA (Wang et al., 2024): layer n sees the proposals of layer n-1 as references, and
the aggregator sees the proposals of the last layer. A recipe may take other ways to one answer, each of
which has a file: an early end of a layer (`early.py`), and methods of the last stage (`conclude.py`).
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from actors.engine import Message
from configs.errors import EngineError, EngineUnavailable, TemplateRefused
from configs.extra_parameters import tools_in_text
from configs.schema import Recipe, Sampling
from serve_app.mixture.aggregate import aggregate
from serve_app.mixture.aggregation_task import AggregationTask
from serve_app.mixture.answer_form import may_leave_out, most_fitting, why_no_proposal
from serve_app.mixture.begun_answer import without_begun_answer
from serve_app.mixture.conclude import conclude
from serve_app.mixture.context_budget import PromptTask, check_conversation
from serve_app.mixture.early import propose_early, why_not_early
from serve_app.mixture.events import (
    AnswerDone,
    Decided,
    Event,
    Missing,
    ProposalDone,
    ProposalDropped,
    Started,
)
from serve_app.mixture.layer import LayerTask, propose
from serve_app.mixture.models import Models
from serve_app.mixture.overlap import NoOverlap, overlap
from serve_app.mixture.quorum_error import quorum_error
from serve_app.mixture.reference_order import ReferenceOrder
from serve_app.mixture.samples import samples_of, seen_by
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
    in_pieces: bool = False,
    given: Sequence[ProposalDone] = (),
    in_calls: Sequence[Message] = (),
) -> AsyncGenerator[Event]:
    """Answer a conversation with the mixture. Closing the generator cancels every engine call.

    1. The conversation must fit into the aggregator's context. Otherwise the request fails before any
       model works on it. Tools do not count if the request leaves it to the model whether to
       call them: if they do not fit, the aggregator answers without them, and `Answered.unheld` has
       their name.
    2. The layers run one after another, unless proposals are given. Each layer ends in one of these
       ways:
       a. The layer meets the quorum: its proposals are the references of the next stage.
       b. The first layer misses the quorum: the request fails.
       c. A later layer misses the quorum: its proposals are dropped (`ProposalDropped`, even where
          `ProposalDone` came before), and the next stage gets the same references as this layer.
       d. A proposal of the layer is the answer already (`early.py`): no further layer runs.
    3. The answer is made by the recipe's method (`conclude.py`). By default the aggregator answers. If
       the aggregator fails before its first text, the first fallback answers, and so on. If all fail,
       the best reference is the answer: the first of the references in the recipe's order of
       proposers, or the first that may have the form that the request asks for. What such an answer
       was not held to is in `Answered.unheld`.

    Once the deadline has passed, no call starts any more, and the calls in flight end. If the answer
    has begun, it ends there, with `Answered.cut`. If not, the best reference is the answer, because a
    proposal is worth more to the user than an error. Without any proposal the request fails.

    Args:
        messages: the conversation. A message of the assistant at its end is read and continued by the
            aggregator only.
        recipe: the mixture.
        models: the models of the recipe.
        sampling: how the aggregator samples; by default as the recipe says.
        seed: fixes the order of the references and the seeds of all calls. With None the order is
            drawn, and the calls have the recipe's seeds (but see `samples_of`).
        streamed: whether the client reads the answer as it grows. If not, the answer comes in one
            delta.
        stream_proposals: whether there are `ProposalThinks` and `ProposalDelta` events.
        in_pieces: whether a `ProposalDelta` may have the text of about 0.1 s, which costs less.
        given: proposals that the aggregator reads instead of those of the last layer. If there are any,
            no layer runs. With the seed of an earlier answer, and the proposals of its last layer with
            their places, the aggregator gets the same prompt again. With `references.order: arrival`,
            the proposals stand in the order in which they are given.
        in_calls: the conversation for an aggregator that calls tools (`AggregationTask.in_calls`).

    Raises:
        RequestError: ContextTooLong in step 1; QuorumNotMet, DeadlineExceeded, Overloaded or
            ContextTooLong in step 2b; the error of an aggregator that fails after its first text.
    """
    limits = recipe.limits
    deadline = asyncio.get_running_loop().time() + limits.deadline_s
    sampling = sampling or recipe.aggregator.sampling
    if seed is not None:
        sampling = sampling.model_copy(update={"seed": seed})
    drawn = random.getrandbits(31) if seed is None else seed
    summary = SummaryBuilder(drawn, recipe.references.order)
    count = len(given) or recipe.samples[-1]
    await _check_fits(messages, in_calls, recipe, models, sampling, count)  # 1
    yield Started(summary.seed)
    references = list(given)
    order = ReferenceOrder.of_given(recipe, given, summary.seed)
    early: Decided | None = None
    last = AggregationTask(
        recipe=recipe,
        role="aggregator",
        messages=messages,
        models=recipe.aggregators,
        references=(),
        best=None,
        sampling=sampling,
        deadline=deadline,
        first_token_timeout_s=recipe.aggregator.first_token_timeout_s,
        streamed=streamed,
        in_calls=in_calls,
    )
    refused = why_no_proposal(messages, sampling)
    for number, layer in enumerate(() if given else recipe.layers, 1):  # 2
        read = order.sort(references, number)
        samples = samples_of(layer, number, summary.seed, fixed=seed is not None)
        task = LayerTask(
            recipe=recipe,
            number=number,
            samples=samples,
            messages=without_begun_answer(messages),
            references=[proposal.text for proposal in read],
            deadline=deadline,
            stream_proposals=stream_proposals,
            in_pieces=in_pieces,
            seen=seen_by(samples, read, layer.see, summary.seed, number),
        )
        proposals = propose(task, models)
        if refused is None:
            proposals = propose_early(task, models, last, in_order=seed is not None)
        result = _LayerResult()
        names = [sample.model for sample in task.samples]
        stage = summary.stage(f"layer {number}", names, read, proposals)
        written = ReferenceOrder(recipe, len(samples), summary.seed)
        warmth = overlap(last, written, names, models) if layer is recipe.layers[-1] else NoOverlap()
        async with aclosing(stage) as events, warmth:
            async for event in events:
                result.take(event)
                warmth.note(event)
                yield event
        if (early := result.decided) is not None:  # 2d
            references, order = result.chosen, written
            break
        if number == 1 and len(result.proposals) < limits.quorum:  # 2b
            raise quorum_error(result.missing, len(result.proposals), limits.quorum)
        if result.proposals:  # 2a; in 2c there are none
            references = [result.proposals[place] for place in sorted(result.proposals)]
            order = written
    read = order.sort(references, recipe.stages)
    texts = [proposal.text for proposal in read]
    why = "" if given else why_not_early(recipe, refused)
    last = replace(last, references=texts, best=most_fitting(references, sampling), why=why)
    async with aclosing(_finish(last, read, models, summary, early)) as events:  # 3
        async for event in events:
            yield event


async def direct(
    messages: Sequence[Message],
    recipe: Recipe,
    models: Models,
    model: str,
    sampling: Sampling,
    *,
    fallbacks: Sequence[str] = (),
    streamed: bool = True,
    in_calls: Sequence[Message] = (),
) -> AsyncGenerator[Event]:
    """Answer with one of the recipe's models alone; the events are those of an aggregator.

    Args:
        messages: the conversation.
        recipe: has the model.
        models: the models of the recipe.
        model: name of the model that answers.
        sampling: how the model samples.
        fallbacks: names of models that take over, in this order, when the model before fails.
        streamed: whether the client reads the answer as it grows. If not, the answer comes in one
            delta.

    Raises:
        RequestError: ContextTooLong, DeadlineExceeded, Overloaded, EngineError, EngineUnavailable.
    """
    summary = SummaryBuilder(seed=sampling.seed or 0)
    yield Started(summary.seed)
    alone = AggregationTask(
        recipe=recipe,
        role="direct",
        messages=messages,
        models=(model, *fallbacks),
        references=(),
        best=None,
        sampling=sampling,
        deadline=asyncio.get_running_loop().time() + recipe.limits.deadline_s,
        first_token_timeout_s=None,
        streamed=streamed,
        in_calls=in_calls,
    )
    async with aclosing(_finish(alone, (), models, summary)) as events:
        async for event in events:
            yield event


async def _finish(
    task: AggregationTask,
    read: Sequence[ProposalDone],
    models: Models,
    summary: SummaryBuilder,
    early: Decided | None = None,
) -> AsyncGenerator[Event]:
    """Run the last stage, then give the summary.

    Args:
        read: the proposals of `task.references`.
        early: what is decided already.
    """
    events = aggregate(task, models) if task.role == "direct" else conclude(task, read, models, early)
    stage = summary.stage(task.role, task.models, read, events)
    async with aclosing(stage) as events:
        async for event in events:
            yield event
    yield AnswerDone(summary.build())


@dataclass(slots=True)
class _LayerResult:
    """The proposals of a layer and its missing models, collected from its events."""

    proposals: dict[int, ProposalDone] = field(default_factory=dict)
    """The layer's proposals by the place of their sample."""
    missing: list[Missing] = field(default_factory=list)
    """For each sample that was dropped, its model and the cause."""
    decided: Decided | None = None
    """Which of the proposals is the answer, if the layer has decided that."""

    @property
    def chosen(self) -> list[ProposalDone]:
        """The proposal that the layer has decided on, alone in a list."""
        chosen = None if self.decided is None else self.decided.chosen
        return [p for p in self.proposals.values() if chosen and p.place == chosen.place]

    def take(self, event: Event) -> None:
        if isinstance(event, ProposalDone):
            self.proposals[event.place] = event
        elif isinstance(event, ProposalDropped):
            self.proposals.pop(event.place, None)
            self.missing.append(event.missing)
        elif isinstance(event, Decided):
            self.decided = event


async def _check_fits(
    messages: Sequence[Message],
    in_calls: Sequence[Message],
    recipe: Recipe,
    models: Models,
    sampling: Sampling,
    count: int,
) -> None:
    """Check that the aggregator can hold the conversation and as many references as it may get.

    Args:
        in_calls: `AggregationTask.in_calls`.
        count: the number of references.

    Raises:
        ContextTooLong: the aggregator cannot.
    """
    tools = tools_in_text(sampling.extra, recipe.settings(recipe.aggregator.model).engine)
    if may_leave_out(tools):
        tools = None
    task = PromptTask(
        recipe,
        recipe.aggregator.model,
        in_calls if tools and in_calls else messages,
        [""] * count,
        sampling.most_tokens,
        sampling.template_arguments,
        tools=tools,
    )
    try:
        async with asyncio.timeout(min(recipe.limits.keepalive_s, recipe.limits.deadline_s)):
            await check_conversation(task, models)
    except (TimeoutError, EngineError, EngineUnavailable, TemplateRefused):
        pass  # the request is not to blame, and a fallback may still answer
