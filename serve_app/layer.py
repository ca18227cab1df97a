"""One layer: its proposers answer side by side until all are through, or the quorum's grace or the
deadline has passed. Who is late, fails, or says nothing is dropped."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from actors.engine import Delta, Message
from actors.errors import SlimMoAError
from configs.schema import Recipe, Sampling
from serve_app.budget import Models, fit
from serve_app.events import (
    Call,
    Event,
    Missing,
    ProposalDelta,
    ProposalDone,
    ProposalDropped,
    Trimmed,
)
from serve_app.prompts import without_reasoning

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """One sample of one proposer. number: from 0, over the whole layer."""

    number: int
    model: str
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class LayerTask:
    """What a layer is asked. number: from 1; deadline: on the event loop's clock."""

    number: int
    places: Sequence[Place]
    messages: Sequence[Message]
    references: Sequence[str]
    deadline: float


async def propose(task: LayerTask, recipe: Recipe, models: Models) -> AsyncGenerator[Event]:
    """Run a layer: events of its proposals as they come; each place ends as done or dropped.

    Closing it cancels every call that is still under way.
    """
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[Event] = asyncio.Queue()
    running = {
        place.number: asyncio.create_task(_run(place, task, recipe, models, events))
        for place in task.places
    }
    done, limit = 0, task.deadline
    try:
        while running:
            try:
                async with asyncio.timeout_at(limit):
                    event = await events.get()
            except TimeoutError:
                break
            if isinstance(event, ProposalDone | ProposalDropped):
                del running[event.place]
            if isinstance(event, ProposalDone):
                done += 1
                if done == recipe.limits.quorum and recipe.limits.grace_s is not None:
                    limit = min(limit, loop.time() + recipe.limits.grace_s)
            yield event
        for place in task.places:
            if place.number in running:
                detail = "was not done when the layer's time was up"
                missing = Missing(task.number, place.model, "late", detail)
                yield ProposalDropped(place.number, missing)
    finally:
        for call in running.values():
            call.cancel()
        if running:
            await asyncio.wait(running.values())


async def _run(
    place: Place, task: LayerTask, recipe: Recipe, models: Models, events: asyncio.Queue[Event]
) -> None:
    error: SlimMoAError | None = None
    outcome: ProposalDone | Missing
    try:
        outcome = await _proposal(place, task, recipe, models, events)
    except SlimMoAError as caught:
        error = caught
        outcome = Missing(task.number, place.model, caught.code, caught.message)
    except Exception as caught:  # a defect must not leave the layer waiting for this place
        logger.exception("proposer %s", place.model)
        outcome = Missing(task.number, place.model, "internal_error", type(caught).__name__)
    if isinstance(outcome, Missing):
        events.put_nowait(ProposalDropped(place.number, outcome, error))
    else:
        events.put_nowait(outcome)


async def _proposal(
    place: Place, task: LayerTask, recipe: Recipe, models: Models, events: asyncio.Queue[Event]
) -> ProposalDone | Missing:
    began = time.perf_counter()
    reserve = place.sampling.max_tokens
    fitted = await fit(models, recipe, place.model, task.messages, task.references, reserve)
    if fitted.tokens_removed:
        events.put_nowait(Trimmed(task.number, place.model, fitted.tokens_removed))
    whole = Delta()
    stream = models.stream(place.model, fitted.messages, place.sampling)
    async with aclosing(cast("AsyncGenerator[Delta]", stream)) as deltas:
        async for delta in deltas:
            whole = whole.plus(delta)
            if delta.text:
                growth = ProposalDelta(task.number, place.number, place.model, delta.text)
                events.put_nowait(growth)
    text = without_reasoning(whole.text)
    if not text:
        detail = "only reasoning" if whole.text or whole.reasoning else "no text"
        return Missing(task.number, place.model, "empty", f"the proposal has {detail}")
    call = call_of(place.model, "proposer", whole)
    seconds = time.perf_counter() - began
    return ProposalDone(task.number, place.number, place.model, text, seconds, call)


def call_of(model: str, role: str, whole: Delta) -> Call:
    """What a finished call used. whole: all of its deltas as one."""
    return Call(model, role, whole.prompt_tokens, whole.completion_tokens, whole.engine_s)
