"""A proposal that stands in for the answer when no aggregator answers.

The proposal was asked for with the proposer's sampling. The request's limits hold for the answer all
the same: it ends before the first of the request's stop texts, and after `max_tokens` tokens.
"""

import asyncio
from math import ceil

from actors.engine import FinishReason
from configs.errors import RequestError
from configs.schema import Sampling
from serve_app.mixture.events import ProposalDone
from serve_app.mixture.models import Models

COUNT_S = 1.0
"""Longest time, in seconds, in which the proposal's tokens are counted."""


async def stand_in(
    best: ProposalDone, sampling: Sampling, deadline: float, models: Models, counter: str
) -> tuple[str, FinishReason]:
    """The text of the proposal within the limits of the request, and why it ends there.

    Args:
        best: the proposal.
        sampling: how the answer was to be sampled.
        deadline: when the answer has to end, in seconds on the event loop's clock.
        models: count the tokens of the text, if there is time.
        counter: the model whose tokens are counted: that of the proposal, or another one if a client
            gave the proposal and no model of the recipe wrote it.
    """
    text, reason = best.text, best.call.finish_reason
    at = min((n for stop in sampling.stop if (n := text.find(stop)) >= 0), default=None)
    if at is not None:
        text, reason = text[:at], "stop"
    most, written = sampling.max_tokens, best.call.completion_tokens
    if most is None or len(text) <= most or 0 < written <= most:  # a token has a character at least
        return text, reason
    end = await _end_of_token(best, text, most, deadline, models, counter)
    return (text, reason) if end >= len(text) else (text[:end], "length")


async def _end_of_token(
    best: ProposalDone, text: str, number: int, deadline: float, models: Models, counter: str
) -> int:
    """Where the token of this number ends. If nobody tells, all tokens count as equally long."""
    loop = asyncio.get_running_loop()
    limit = min(deadline, loop.time() + COUNT_S)
    if loop.time() < limit:
        try:
            async with asyncio.timeout_at(limit):
                (ends,) = await models.token_ends(counter, [text])
            return ends[number - 1] if len(ends) > number else len(text)
        except (TimeoutError, RequestError):
            pass
    written = best.call.completion_tokens or len(text)
    return min(len(text), ceil(len(best.text) * number / written))
