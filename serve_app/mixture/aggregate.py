"""The last stage: an aggregator writes the answer, or a proposal stands in if all aggregators fail."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from actors.engine import Delta
from configs.errors import RequestError
from serve_app.mixture.aggregation_task import AggregationTask
from serve_app.mixture.answer_form import not_held
from serve_app.mixture.answer_writer import Writer
from serve_app.mixture.events import (
    AnswerDelta,
    Answered,
    Decided,
    Event,
    Missing,
    ProposalDone,
    Reference,
)
from serve_app.mixture.models import Models
from serve_app.mixture.stand_in import stand_in
from serve_app.safe_traceback import safe_traceback

logger = logging.getLogger(__name__)


async def aggregate(task: AggregationTask, models: Models) -> AsyncGenerator[Event]:
    """Write the answer and give its events. The models are tried in order. These cases are possible:

    1. The model writes text and ends: the text is the answer.
    2. The deadline passes after the model's first text: the answer ends there, with `cut`.
    3. The model's replica is lost before the client has read any text: `Retried`, and the same model is
       tried again on another replica, within the same limits of time, as far as `retry.py` allows.
    4. The model fails before the client has read any text, writes no text in time, or ends without
       text: `Missing`, and the next model is tried.
    5. The model fails after the client has read text, or the last model fails and there is no proposal:
       the error is raised.
    6. No model is left: the best proposal is the answer, within the request's limits.

    If the answer is not streamed, the client reads no text before its end. If there is a proposal,
    blank text and reasoning do not count as text in these cases. So reasoning may have been streamed
    already when case 3 or 4 occurs. Without a proposal, everything that the model writes counts as
    text.

    Raises:
        RequestError: case 5.
        Exception: case 5, because of a defect of this program.
    """
    began = asyncio.get_running_loop().time()
    for n, model in enumerate(task.models):
        writer = Writer(task, models, model, began, is_fallback=n > 0)
        try:
            async with aclosing(writer.events()) as events:
                async for event in events:
                    yield event
            return  # 1, 2
        except Exception as error:
            if writer.was_read or (task.best is None and model == task.models[-1]):  # 5
                raise
            failure = to_request_error(error, model)
        yield Missing(0, model, failure.code, failure.message)  # 4
    assert task.best is not None
    why = "no model could write the answer, and a proposal stands in"
    decided = Decided("stand_in", why, Reference(task.best.layer, task.best.place))
    async for event in as_it_stands(task, task.best, decided, models):  # 6
        yield event


async def as_it_stands(
    task: AggregationTask, proposal: ProposalDone, decided: Decided, models: Models
) -> AsyncGenerator[Event]:
    """Give a proposal as the answer, within the request's limits.

    Args:
        task: says how the answer was to be sampled, and by when it has to end.
        proposal: the answer.
        decided: why it is the answer.
        models: the models of the recipe.
    """
    counter = proposal.model if proposal.model in task.recipe.names else task.models[-1]
    text, reason = await stand_in(proposal, task.sampling, task.deadline, models, counter)
    yield AnswerDelta(Delta(text=text))
    written, most = proposal.call.completion_tokens, task.sampling.max_tokens
    yield Answered(
        proposal.model,
        reason,
        fallback="reference" if decided.method == "stand_in" else None,
        tokens=written if most is None else min(written, most),
        unheld=not_held(task.sampling, text, None),
        method=decided.method,
        why=decided.why,
        chosen=decided.chosen,
    )


def to_request_error(error: Exception, model: str) -> RequestError:
    """The error as a RequestError. A defect of this program is logged and becomes a RequestError too,
    so that the defect costs the model its attempt and not the client the answer."""
    if isinstance(error, RequestError):
        return error
    logger.error("aggregator %s: %s", model, safe_traceback(error))
    return RequestError(type(error).__name__, model=model)
