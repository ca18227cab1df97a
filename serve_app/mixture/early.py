"""A layer that may have the answer before all of its proposals are there.

1. `first`: the best member answers alone. If it is sure, its proposal is the answer, and the other
   models are not asked. If not, they are asked, and the proposal is one of the layer's. The member has
   half of the layer's time. Then it is late, so that a member that hangs costs no answer.
2. `exit`: as soon as enough proposals agree, the most trusted of them is the answer, and the others are
   not waited for.

Proposals that are not needed are dropped with the cause `not_needed`. Nothing is missing then, and the
answer is not degraded. Their calls are cancelled.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from configs.schema import Recipe
from serve_app.mixture.aggregation_task import AggregationTask
from serve_app.mixture.agree import Group, by_size, find_answer, groups
from serve_app.mixture.events import (
    NOT_NEEDED,
    Decided,
    Event,
    Missing,
    ProposalDone,
    ProposalDropped,
    Reference,
)
from serve_app.mixture.first import is_sure
from serve_app.mixture.guard import same_conclusion
from serve_app.mixture.layer import LayerTask, propose
from serve_app.mixture.models import Models
from serve_app.mixture.samples import Sample
from serve_app.mixture.short_calls import ask_side_by_side, missing

FIRST_SHARE = 0.5
"""The share of the layer's time that the best member has alone."""
JUDGED_SAME = 0.9
"""Least probability of "yes" with which a judge ends an answer."""


def propose_early(
    task: LayerTask, models: Models, judge: AggregationTask, *, in_order: bool
) -> AsyncGenerator[Event]:
    """Run a layer, and end it with `Decided` as soon as a proposal of it is the answer.

    Args:
        task: the layer.
        models: the models of the recipe.
        judge: how an aggregator compares two proposals, if `exit.judge` asks for it.
        in_order: whether a proposal counts for an exit only when all proposals before it have ended.
            The same seed then ends the layer at the same proposals, however fast the models are.
    """
    recipe = task.recipe
    has_first = recipe.first is not None and task.number == 1 and len(task.samples) > 1
    events = _first_alone(task, models) if has_first else propose(task, models)
    if recipe.exit is None:
        return events
    return _until_agreed(events, task, _Agreement(task, models, judge, in_order=in_order))


def why_not_early(recipe: Recipe, refused: str | None) -> str:
    """What is said of layers that did not end early; empty if the recipe knows no early end.

    Args:
        recipe: the recipe.
        refused: why the request allowed no early end; None if it did.
    """
    first = "the best member was not sure" if recipe.first is not None else ""
    agree = "not enough proposals agreed" if recipe.exit is not None else ""
    why = " and ".join(filter(None, (first, agree)))
    return refused if refused and why else why


async def _first_alone(task: LayerTask, models: Models) -> AsyncGenerator[Event]:
    """Case 1 of the file's docstring."""
    first = task.recipe.first
    assert first is not None
    best, *others = task.samples
    loop = asyncio.get_running_loop()
    began = loop.time()
    layer_s = task.recipe.limits.layer_deadline_s
    alone = replace(
        task,
        samples=[_with_logprobs(best)],
        deadline=min(task.deadline, began + FIRST_SHARE * layer_s),
    )
    done: ProposalDone | None = None
    async with aclosing(propose(alone, models)) as events:
        async for event in events:
            done = event if isinstance(event, ProposalDone) else done
            yield event
    if done is not None and is_sure(done.confidence, first.tau):
        why = f"the mean log-probability {done.confidence:.3f} is at least tau, which is {first.tau:g}"
        for event in _not_needed(task, others, loop.time() - began):
            yield event
        yield Decided("first", why, Reference(done.layer, done.place))
        return
    rest = replace(task, samples=others, began=began)
    async with aclosing(propose(rest, models)) as events:
        async for event in events:
            yield event


def _with_logprobs(sample: Sample) -> Sample:
    if sample.sampling.top_logprobs is not None:
        return sample
    return replace(sample, sampling=sample.sampling.model_copy(update={"top_logprobs": 0}))


async def _until_agreed(
    events: AsyncGenerator[Event], task: LayerTask, agreement: "_Agreement"
) -> AsyncGenerator[Event]:
    """Case 2 of the file's docstring."""
    began = asyncio.get_running_loop().time()
    async with aclosing(events):
        async for event in events:
            yield event
            if isinstance(event, Decided):
                return
            if isinstance(event, ProposalDone | ProposalDropped):
                agreement.note(event)
                for more in await agreement.look():
                    yield more
            if agreement.found is not None:
                break
    if agreement.found is not None:
        seconds = asyncio.get_running_loop().time() - began
        for event in _not_needed(task, list(agreement.waiting.values()), seconds):
            yield event
        yield agreement.found


def _not_needed(task: LayerTask, samples: Sequence[Sample], seconds: float) -> list[Event]:
    detail = "the answer was there before"
    return [
        ProposalDropped(n.place, Missing(task.number, n.model, NOT_NEEDED, detail), seconds)
        for n in samples
    ]


class _Agreement:
    """Looks whether enough proposals agree, by their answers, and else by a judge if there is one."""

    def __init__(
        self, task: LayerTask, models: Models, judge: AggregationTask, *, in_order: bool
    ) -> None:
        assert task.recipe.exit is not None
        self._exit = task.recipe.exit
        self._models = models
        self._judge = judge
        self._in_order = in_order
        self._done: dict[int, ProposalDone] = {}
        self._looked_to = 0
        """The place up to which proposals were looked at, if they count in their order."""
        self._judged: list[list[ProposalDone]] = []
        """Proposals without an answer, those together that come to the same conclusion."""
        self.waiting = {sample.place: sample for sample in task.samples}
        """The samples that have not ended, by place."""
        self.found: Decided | None = None

    def note(self, event: ProposalDone | ProposalDropped) -> None:
        """Take in how a sample has ended."""
        self.waiting.pop(event.place, None)
        if isinstance(event, ProposalDone):
            self._done[event.place] = event
        else:
            self._done.pop(event.place, None)

    async def look(self) -> list[Event]:
        """Look at the proposals that have come. The events are those of the judge."""
        done, events = sorted(self._done.items()), list[Event]()
        if not self._in_order:
            return await self._look_at([proposal for _, proposal in done])
        end = min(self.waiting, default=max(self._done, default=-1) + 1)
        for place in range(self._looked_to, end):  # as if they had ended one after the other
            if self.found is None:
                events += await self._look_at([p for n, p in done if n <= place])
        self._looked_to = max(self._looked_to, end)
        return events

    async def _look_at(self, proposals: Sequence[ProposalDone]) -> list[Event]:
        form, events = self._exit.answer, list[Event]()
        if self._decide(groups(proposals, form), len(proposals), "the same answer"):
            return events
        if self._exit.judge:
            known = {proposal.place for group in self._judged for proposal in group}
            for proposal in proposals:
                if proposal.place not in known and find_answer(proposal.text, form) is None:
                    events += await self._assign(proposal)
            by_trust = (sorted(group, key=lambda each: each.place) for group in self._judged)
            judged = by_size(Group(tuple(group)) for group in by_trust)
            self._decide(judged, len(proposals), "the same conclusion, as the aggregator judged")
        return events

    async def _assign(self, proposal: ProposalDone) -> list[Event]:
        """Put a proposal to those with the same conclusion."""
        model = self._judge.models[0]
        asked = [same_conclusion(group[0].text, proposal.text) for group in self._judged]
        replies = await ask_side_by_side(asked, model, self._judge, self._models)
        for group, shares in zip(self._judged, replies.shares, strict=True):
            if shares is not None and shares["yes"] >= JUDGED_SAME:
                group.append(proposal)
                break
        else:
            self._judged.append([proposal])
        return [*replies.events, *missing(replies.errors, model)]

    def _decide(self, found: Sequence[Group], of: int, what: str) -> bool:
        for group in found:
            if len(group.proposals) >= self._exit.agree and group.models >= self._exit.of_models:
                best = group.proposals[0]
                why = f"{len(group.proposals)} of {of} proposals, of {group.models} models, have {what}"
                self.found = Decided("agreement", why, Reference(best.layer, best.place))
                return True
        return False
