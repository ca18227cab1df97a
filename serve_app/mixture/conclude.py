"""The last stage: one answer from the proposals, by the recipe's method.

1. `merge`: an aggregator writes the answer (`aggregate.py`).
2. `select`: an aggregator picks a proposal (`select.py`). If it is not sure, the more trusted of the
   best two is the answer. If no model can pick, the most trusted of all is, and that is degraded.
3. `select_or_merge`: an aggregator picks a proposal. If it is not sure, the best two are merged. If no
   model can pick, all are merged.
   In 2 and 3, if the aggregator is not sure, proposals that refuse to answer do not count as long as
   fewer than half of the proposals refuse (`unwilling.py`).
4. `vote`: the proposals vote (`vote.py`). If no proposal has an answer that can be counted, all are
   merged.
5. A proposal was decided on before this stage (`early.py`): it is the answer.

Where the request allows no proposal as its answer (`why_no_proposal`), all are merged.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from configs.methods import MOST_GUARDED, MOST_SELECTED
from serve_app.mixture import guard
from serve_app.mixture.aggregate import aggregate, as_it_stands
from serve_app.mixture.aggregation_task import AggregationTask
from serve_app.mixture.answer_form import why_no_proposal
from serve_app.mixture.events import Decided, Event, ProposalDone, Reference
from serve_app.mixture.models import Models
from serve_app.mixture.select import Pick, pick, questions
from serve_app.mixture.short_calls import ask_side_by_side, missing
from serve_app.mixture.unwilling import answering
from serve_app.mixture.vote import vote


def conclude(
    task: AggregationTask,
    read: Sequence[ProposalDone],
    models: Models,
    early: Decided | None = None,
) -> AsyncGenerator[Event]:
    """The events of the last stage.

    Args:
        task: the stage. If a proposal is the answer, it is within the limits of the task.
        read: the proposals of `task.references`, in the same order.
        models: the models of the recipe.
        early: what was decided before the last stage: which of `read` is the answer.

    Raises:
        RequestError: see `aggregate`.
    """
    aggregator = task.recipe.aggregator
    if early is None and aggregator.method == "merge" and not (aggregator.guard or task.why):
        return aggregate(task, models)  # each generator around it would cost time for every token
    return _conclude(_Decision(task, read, models, early))


async def _conclude(decision: "_Decision") -> AsyncGenerator[Event]:
    async with aclosing(decision.make()) as events:
        async for event in events:
            yield event
    decided = decision.decided
    if decided.why:
        yield decided
    async with aclosing(decision.answer()) as events:
        async for event in events:
            yield event


@dataclass(slots=True)
class _Decision:
    """How the last stage goes on, while it is found out and afterwards."""

    task: AggregationTask
    read: Sequence[ProposalDone]
    models: Models
    early: Decided | None
    decided: Decided = field(default_factory=lambda: Decided("merge", ""))
    merged: Sequence[ProposalDone] = ()
    """The proposals that are merged, if some are."""
    note: str = ""

    async def make(self) -> AsyncGenerator[Event]:
        """Decide. The events are those of the short calls."""
        aggregator, self.merged = self.task.recipe.aggregator, self.read
        refused = why_no_proposal(self.task.messages, self.task.sampling)
        if self.early is not None:
            self.decided = self.early
        elif aggregator.method == "merge" or not self.read:
            self._merge(self.read, self.task.why)
        elif refused is not None:
            self._merge(self.read, refused)
        elif aggregator.method != "vote" and len(self.read) > MOST_SELECTED:
            why = f"{len(self.read)} proposals came, and a model picks among {MOST_SELECTED} at most"
            self._merge(self.read, why)
        elif aggregator.method == "vote":
            self._vote()
        else:
            async for event in self._select():
                yield event
        most = 2 if aggregator.method == "select_or_merge" else MOST_GUARDED
        if self.decided.method == "merge" and aggregator.guard and 1 < len(self.merged) <= most:
            async for event in self._mark():
                yield event

    async def answer(self) -> AsyncGenerator[Event]:
        """The events of the answer itself."""
        chosen, task = self.decided.chosen, self.task
        if chosen is not None:
            proposal = next(p for p in self.read if (p.layer, p.place) == (chosen.layer, chosen.place))
            events = as_it_stands(task, proposal, self.decided, self.models)
        else:
            texts = [proposal.text for proposal in self.merged]
            task = replace(task, references=texts, note=self.note, why=self.decided.why)
            events = aggregate(task, self.models)
        async with aclosing(events) as written:
            async for event in written:
                yield event

    def _merge(self, proposals: Sequence[ProposalDone], why: str) -> None:
        self.merged, self.decided = proposals, Decided("merge", why)

    def _take(self, method: "Decided", proposal: ProposalDone) -> None:
        chosen = Reference(proposal.layer, proposal.place)
        self.decided = replace(method, chosen=chosen)

    def _vote(self) -> None:
        form = self.task.recipe.aggregator.answer
        assert form is not None
        if (found := vote(self.read, form)) is None:
            self._merge(self.read, "no proposal has an answer of the form that the vote counts")
        else:
            self._take(Decided("vote", found.why), found.proposal)

    async def _select(self) -> AsyncGenerator[Event]:
        if len({proposal.text for proposal in self.read}) == 1:
            why = "only one proposal came" if len(self.read) == 1 else "all proposals are the same text"
            self._take(Decided("select", why), _most_trusted(self.read))
            return
        for model in self.task.models:
            replies = await ask_side_by_side(questions(self.read), model, self.task, self.models)
            for event in (*replies.events, *missing(replies.errors, model)):
                yield event
            if (found := pick(replies.shares)) is not None:
                self._take_pick(found)
                return
            if (
                not replies.errors
            ):  # it replied, and named no proposal; another model would be asked in vain
                break
        self._without_pick()

    def _take_pick(self, found: Pick) -> None:
        aggregator = self.task.recipe.aggregator
        ranked = [self.read[n] for n in found.ranking]
        if found.lead >= aggregator.margin:
            self._take(Decided("select", found.why), ranked[0])
            return
        kept = answering(ranked)
        two = "two" if kept[:2] == ranked[:2] else "best two that do not refuse"
        if aggregator.method == "select":
            why = f"{found.why}, so the more trusted of the {two} is the answer"
            self._take(Decided("select", why), _most_trusted(kept[:2]))
        else:
            best = [proposal for proposal in self.read if proposal in kept[:2]]
            self._merge(best, f"{found.why}, so the {two} are merged")

    def _without_pick(self) -> None:
        why = "no model said which proposal is the best"
        if self.task.recipe.aggregator.method == "select":
            self._take(Decided("stand_in", why), self.task.best or _most_trusted(self.read))
        else:
            self._merge(self.read, f"{why}, so all are merged")

    async def _mark(self) -> AsyncGenerator[Event]:
        texts, recipe = [proposal.text for proposal in self.merged], self.task.recipe
        form = recipe.aggregator.answer or (recipe.exit and recipe.exit.answer)
        agreeing = guard.by_answers(texts, form) if form else {}
        open_pairs = [pair for pair in guard.pairs(len(texts)) if pair not in agreeing]
        asked = [guard.same_conclusion(texts[one], texts[other]) for one, other in open_pairs]
        model = self.task.models[0]
        replies = await ask_side_by_side(asked, model, self.task, self.models)
        for event in (*replies.events, *missing(replies.errors, model)):
            yield event
        agreeing |= dict(zip(open_pairs, replies.shares, strict=True))
        if not all(shares is None for shares in agreeing.values()):
            self.note = guard.note(guard.clusters(len(texts), agreeing))


def _most_trusted(proposals: Sequence[ProposalDone]) -> ProposalDone:
    """The first in the recipe's order."""
    return min(proposals, key=lambda proposal: (proposal.layer, proposal.place))
