"""Short calls of a model that compares proposals: one token each, side by side.

What counts is the probability of the tokens that are allowed as a reply, so a call is nearly all
prefill. An engine that tells no log-probabilities is asked for a few tokens, and its reply is a vote.
"""

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from actors.engine import Delta
from configs.errors import DeadlineExceeded, EngineUnavailable, RequestError
from configs.method_checks import tells_logprobs
from configs.schema import OpenAIHttpModel, Recipe, References, Sampling
from serve_app.mixture.aggregate import to_request_error
from serve_app.mixture.aggregation_task import AggregationTask
from serve_app.mixture.begun_answer import without_begun_answer
from serve_app.mixture.context_budget import PromptTask, fit
from serve_app.mixture.events import Call, Event, Judged, Missing, Retried, Trimmed
from serve_app.mixture.models import Models
from serve_app.mixture.retry import Retries
from serve_app.mixture.time_limit import until

REPLY_TOKENS = 4
"""Tokens of a reply that is read as text."""
TOP = 20
"""How many of the likeliest tokens are asked for."""
LEAST_MASS = 0.02
"""Least probability that all allowed replies have to have together. With less, the model wanted to say
something else, and the shares of its replies mean nothing."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a short call asks."""

    references: Sequence[str]
    """The proposals that it compares, in the order of the prompt."""
    instructions: str
    """What stands before the references."""
    ask: str
    """What stands behind them: the question itself."""
    replies: tuple[str, ...]
    """The replies that are allowed, in lower case."""


Shares = Mapping[str, float]
"""The probability of each allowed reply; all together are 1."""


@dataclass(slots=True)
class Replies:
    """What short calls came to."""

    shares: list[Shares | None]
    """For each question its replies; None where the call failed or the reply was none of them."""
    events: list[Event] = field(default_factory=list)
    """What happened meanwhile."""
    errors: list[RequestError] = field(default_factory=list)
    """The errors of the calls that failed."""


def short_sampling(recipe: Recipe, model: str) -> Sampling:
    """How a short call is sampled. A server is asked for text only: many tell no log-probabilities,
    and some refuse the parameter."""
    settings = recipe.settings(model)
    if isinstance(settings, OpenAIHttpModel):
        return Sampling(temperature=0, max_tokens=REPLY_TOKENS)
    if not tells_logprobs(settings.model_dump(include={"engine", "speculation"})):
        return Sampling(temperature=0, max_tokens=REPLY_TOKENS, reasoning_effort="none")
    return Sampling(temperature=0, max_tokens=1, top_logprobs=TOP, reasoning_effort="none")


async def ask_side_by_side(
    questions: Sequence[Question], model: str, task: AggregationTask, models: Models
) -> Replies:
    """Ask a model all questions at the same time. A call that fails leaves the others alone.

    The calls end at the deadline of the answer, and at the aggregator's limit for its first token.
    """
    loop = asyncio.get_running_loop()
    limit = task.deadline
    if task.first_token_timeout_s is not None:
        limit = min(limit, loop.time() + task.first_token_timeout_s)
    replies = Replies([None] * len(questions))

    async def one(number: int, question: Question) -> None:
        try:
            async with until(limit):
                whole = await _ask(question, model, task, models, replies.events)
        except TimeoutError:
            error = DeadlineExceeded(f"model {model!r} replied nothing in time", model=model)
            replies.errors.append(error)
        except Exception as error:
            replies.errors.append(to_request_error(error, model))
        else:
            replies.shares[number] = read_shares(whole, question.replies)

    async with asyncio.TaskGroup() as group:
        for number, question in enumerate(questions):
            group.create_task(one(number, question))
    return replies


async def _ask(
    question: Question, model: str, task: AggregationTask, models: Models, events: list[Event]
) -> Delta:
    sampling = short_sampling(task.recipe, model)
    retries = Retries(models, model)
    prompt = PromptTask(
        recipe=task.recipe,
        model=model,
        messages=without_begun_answer(task.messages),
        references=question.references,
        reserve_tokens=sampling.most_tokens,
        template=sampling.template_arguments,
        form=References(style="tail", prompt=question.instructions, item=task.recipe.references.item),
        note=question.ask,
    )

    def on_retry(error: EngineUnavailable) -> None:
        events.append(Retried(0, model, error.message))

    fitted = await retries.run(lambda: fit(prompt, models), on_retry)
    if fitted.tokens_removed:
        events.append(Trimmed(0, model, fitted.tokens_removed))
    whole = await retries.run(lambda: models.complete(model, fitted.messages, sampling), on_retry)
    events.append(Judged(Call.from_delta(model, "aggregator", whole, sampling.seed)))
    return whole


def read_shares(whole: Delta, replies: Sequence[str]) -> Shares | None:
    """The probability of each reply in what a model wrote; None if it wrote none of them.

    The first token counts whose place the replies share with enough probability (`LEAST_MASS`). Without
    log-probabilities, the first reply in the text has all of it.
    """
    for token in whole.logprobs:
        mass = dict.fromkeys(replies, 0.0)
        for text, probability in _likely(token):
            if text in mass:
                mass[text] += probability
        if (total := sum(mass.values())) >= LEAST_MASS:
            return {reply: each / total for reply, each in mass.items()}
    words = "".join(c if c.isalnum() else " " for c in whole.text.casefold()).split()
    said = next((word for word in words if word in replies), None)
    return None if said is None else {reply: float(reply == said) for reply in replies}


def _likely(token: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    """The likely tokens of one place, without marks around them, and their probabilities."""
    top = token.get("top_logprobs")
    for each in top if isinstance(top, list) and top else [token]:
        text, logprob = each.get("token"), each.get("logprob")
        if isinstance(text, str) and isinstance(logprob, int | float):
            yield text.strip(" \t\r\n▁Ġ*_().\"'").casefold(), math.exp(min(0.0, logprob))


def missing(errors: Sequence[RequestError], model: str) -> Iterator[Missing]:
    """What is said of the calls that failed."""
    for error in errors:
        yield Missing(0, model, error.code, error.message)
