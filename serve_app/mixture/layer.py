"""One layer: its proposers answer side by side until all are through, or the quorum's grace or the
deadline has passed. Who is late, fails, or says nothing is dropped. A call that is lost with its
replica is made again first."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from actors.engine import Delta, Message
from configs.errors import EmptyAnswer, EngineUnavailable, QuorumNotMet, RequestError
from configs.schema import Limits, Recipe, Sampling
from serve_app.mixture.context_budget import Models, fit
from serve_app.mixture.events import (
    Call,
    Event,
    Missing,
    ProposalDelta,
    ProposalDone,
    ProposalDropped,
    Retried,
    Role,
    Spent,
    Trimmed,
)
from serve_app.mixture.references import without_reasoning
from serve_app.mixture.retry import Replicated, Retries
from serve_app.safe_traceback import safe_traceback

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """One sample of one proposer. number: from 0, over the whole layer."""

    number: int
    model: str
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class LayerTask:
    """What a layer is asked.

    number: from 1; references: the last layer's proposals; deadline: the answer's, on the event
    loop's clock; watched: proposals are to be seen as they grow, at some cost.
    """

    number: int
    places: Sequence[Place]
    messages: Sequence[Message]
    references: Sequence[str]
    deadline: float
    watched: bool = True


async def propose(task: LayerTask, recipe: Recipe, models: Replicated) -> AsyncGenerator[Event]:
    """Run a layer: events of its proposals as they come; each place ends as done or dropped.

    The layer keeps its time whether or not its events are read. A later layer that misses the quorum
    drops its proposals, and its references stay. Closing it cancels every call that is still under
    way, and waits until they have ended.
    """
    events: asyncio.Queue[Event | None] = asyncio.Queue()
    calls: dict[asyncio.Task[ProposalDone | Missing], Place] = {}
    if asyncio.get_running_loop().time() < task.deadline:
        for place in task.places:
            call = asyncio.create_task(_run(place, task, recipe, models, events.put_nowait))
            calls[call] = place
    watch = asyncio.create_task(_watch(calls, task, recipe.limits, events.put_nowait))
    watch.add_done_callback(lambda _: events.put_nowait(None))
    try:
        while (event := await events.get()) is not None:
            yield event
        await watch
    finally:
        watch.cancel()
        for call in calls:
            if not call.cancelling():  # a second time would break into the engine's closing
                call.cancel()
        await asyncio.wait([watch, *calls])


async def _watch(
    calls: Mapping[asyncio.Task[ProposalDone | Missing], Place],
    task: LayerTask,
    limits: Limits,
    say: Callable[[Event], None],
) -> None:
    """Say how each place ends; cancel who is late, by the deadline or by the quorum's grace."""
    loop = asyncio.get_running_loop()
    limit = min(task.deadline, loop.time() + limits.layer_deadline_s)
    waiting, done = dict(calls), list[Place]()
    while waiting:
        left = limit - loop.time()
        ended, _ = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if not ended:
            break
        for call in sorted(ended, key=lambda c: waiting[c].number):
            place = waiting.pop(call)
            if isinstance(outcome := _outcome(call, place, task), ProposalDone):
                done.append(place)
                say(outcome)
            else:
                say(ProposalDropped(place.number, outcome))
        if len(done) >= limits.quorum and limits.grace_s is not None:
            limit = min(limit, loop.time() + limits.grace_s)
    for call in waiting:
        call.cancel()
    for place in waiting.values() if calls else task.places:
        detail = "was not done when the layer's time was up"
        say(ProposalDropped(place.number, Missing(task.number, place.model, "late", detail)))
    if len(done) < limits.quorum and task.references:
        detail = f"{len(done)} of {limits.quorum} proposals came, so the last layer's are used again"
        for place in done:
            missing = Missing(task.number, place.model, QuorumNotMet.code, detail)
            say(ProposalDropped(place.number, missing))


def _outcome(
    call: asyncio.Task[ProposalDone | Missing], place: Place, task: LayerTask
) -> ProposalDone | Missing:
    if call.cancelled():  # not by us, or nobody would ask
        return Missing(task.number, place.model, EngineUnavailable.code, "the call was cancelled")
    return call.result()


async def _run(
    place: Place, task: LayerTask, recipe: Recipe, models: Replicated, say: Callable[[Event], None]
) -> ProposalDone | Missing:
    try:
        return await _proposal(place, task, recipe, models, say)
    except RequestError as error:
        return Missing(task.number, place.model, error.code, error.message)
    except Exception as error:  # a defect costs a proposal, not the answer
        logger.error("proposer %s: %s", place.model, safe_traceback(error))
        return Missing(task.number, place.model, RequestError.code, type(error).__name__)


async def _proposal(
    place: Place, task: LayerTask, recipe: Recipe, models: Replicated, say: Callable[[Event], None]
) -> ProposalDone | Missing:
    loop = asyncio.get_running_loop()
    began = loop.time()
    reserve = place.sampling.max_tokens
    retries = Retries(models, place.model)

    def lost(error: EngineUnavailable) -> None:
        say(Retried(task.number, place.model, error.message))

    fitted = await retries.of(
        lambda: fit(models, recipe, place.model, task.messages, task.references, reserve), lost
    )
    if fitted.tokens_removed:
        say(Trimmed(task.number, place.model, fitted.tokens_removed))
    if task.watched:
        watched = _Watched(place, task, models, fitted.messages, say)
        whole = await retries.of(watched.proposal, lost)
    else:
        whole = await retries.of(
            lambda: models.complete(place.model, fitted.messages, place.sampling), lost
        )
    call = call_of(place.model, "proposer", whole, place.sampling.seed)
    text = without_reasoning(whole.text)
    if not text:
        say(Spent(call))
        detail = "only reasoning" if whole.text.strip() or whole.reasoning else "no text"
        return Missing(task.number, place.model, EmptyAnswer.code, f"the proposal has {detail}")
    return ProposalDone(task.number, place.number, place.model, text, loop.time() - began, call)


class _Watched:
    """A proposal that is seen as it grows, however often it is begun."""

    def __init__(
        self,
        place: Place,
        task: LayerTask,
        models: Models,
        messages: Sequence[Message],
        say: Callable[[Event], None],
    ) -> None:
        self._place, self._task, self._models = place, task, models
        self._messages, self._say = messages, say
        self._shown = ""

    async def proposal(self) -> Delta:
        whole, place = Delta(), self._place
        stream = self._models.stream(place.model, self._messages, place.sampling)
        async with aclosing(cast("AsyncGenerator[Delta]", stream)) as deltas:
            async for delta in deltas:
                whole = whole.plus(delta)
                self._show(whole.text)
        return whole

    def _show(self, text: str) -> None:
        if len(text) > len(self._shown) and text.startswith(self._shown):
            more = text[len(self._shown) :]
            self._shown = text
            self._say(ProposalDelta(self._task.number, self._place.number, self._place.model, more))


def call_of(model: str, role: Role, whole: Delta, seed: int | None) -> Call:
    """What a finished call used. whole: all of its deltas as one; seed: its sampling's."""
    return Call(
        model=model,
        role=role,
        prompt_tokens=whole.prompt_tokens,
        completion_tokens=whole.completion_tokens,
        engine_s=whole.engine_s,
        finish_reason=whole.finish_reason or "stop",
        seed=seed,
    )
