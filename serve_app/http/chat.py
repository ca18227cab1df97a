"""POST /v1/chat/completions and POST /v1/responses: from a request to an answer, whole or as a stream.

Both APIs ask the same; only their JSON differs.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Protocol

from fastapi import Request
from fastapi.responses import Response

from actors.origin import REQUEST
from configs.errors import BadRequest, RequestError
from configs.schema import Recipe, Sampling
from serve_app.access.admission import AdmissionControl, Demand, admitted_events
from serve_app.access.api_keys import Key
from serve_app.access.auth import KEY, Authenticator
from serve_app.http.asked_sampling import asked_sampling
from serve_app.http.connection import EventStreamResponse, read_body, require_readable, while_connected
from serve_app.http.fusion import calls_at_once, chosen_recipe
from serve_app.http.pacing import with_keepalives
from serve_app.http.refusals import WATCHED
from serve_app.http.request import ChatRequest, parse
from serve_app.http.response import ChatResponse
from serve_app.http.responses_reply import ResponsesReply
from serve_app.http.responses_request import parse_responses, rename
from serve_app.http.routes import Router
from serve_app.http.served_models import ServedModels
from serve_app.http.shown_proposals import ShownProposals
from serve_app.mixture import moa
from serve_app.mixture.events import AnswerDone, Event, Summary
from serve_app.mixture.given import given_proposals
from serve_app.mixture.models import Models, on_behalf
from serve_app.observe import Asked, Observer, Watcher, watched, watched_calls
from serve_app.request_id import request_id
from serve_app.safe_traceback import safe_traceback

logger = logging.getLogger(__name__)


class Reply(Protocol):
    """Writes the answer to one request as JSON, in the form of one of the two APIs."""

    id: str
    shows_growth: bool
    """Whether it shows proposals while they grow."""
    shows_tokens: bool
    """Whether it shows them token by token, and not in larger pieces."""

    def role(self) -> str:
        """The beginning of a stream, before any text."""

    def chunks(self, batch: Sequence[Event]) -> str:
        """The server-sent events for events of the answer; for none, a sign of life."""

    def error(self, error: RequestError) -> str:
        """The end of a stream that fails after it began."""

    def whole(self, events: Sequence[Event], summary: Summary) -> str:
        """The answer in one piece, as JSON."""


class ChatEndpoint:
    """Answers conversations with the mixture, or with one of its models.

    Args:
        recipe: the mixture.
        models: the models of the recipe.
        served: the names that a request may give as its model.
        authenticator: knows whether several keys compete for the models.
        admission: decides whether a request may begin.
        observer: learns what becomes of each request.
    """

    def __init__(
        self,
        recipe: Recipe,
        models: Models,
        served: ServedModels,
        authenticator: Authenticator,
        admission: AdmissionControl,
        observer: Observer,
    ) -> None:
        self._recipe = recipe
        self._models = models
        self._served = served
        self._authenticator = authenticator
        self._admission = admission
        self._observer = observer
        self._router = Router(recipe)

    async def chat_completions(self, http: Request) -> Response:
        """Answer a conversation with the mixture, or with one of its models by name."""
        require_readable(http)
        limits = self._recipe.limits
        request = parse(await read_body(http, limits.max_body_bytes, limits.read_timeout_s))
        request.answer_by(self._router.route(request))
        shown = ShownProposals(len(self._recipe.layers)) if self._shows_proposals(request) else None
        return await self._answer(http, request, ChatResponse(request, shown))

    def _shows_proposals(self, request: ChatRequest) -> bool:
        """Whether a stream shows the proposals as its reasoning."""
        asked = request.moa
        if not request.stream or not self._is_of_mixture(request) or asked.events or asked.fuse:
            return False
        return bool(asked.reasoning) and (
            self._recipe.show_proposals if asked.proposals is None else asked.proposals
        )

    def _is_of_mixture(self, request: ChatRequest) -> bool:
        """Whether the mixture answers, and not one model."""
        return request.answers == self._recipe.name

    async def responses(self, http: Request) -> Response:
        """Answer a conversation in the form of OpenAI's Responses API. Nothing is stored."""
        require_readable(http)
        limits = self._recipe.limits
        body = await read_body(http, limits.max_body_bytes, limits.read_timeout_s)
        asked = parse_responses(body)
        asked.chat.answer_by(self._router.route(asked.chat))
        shows_proposals = asked.shows_proposals(self._recipe.show_proposals)
        reply = ResponsesReply(asked, shows_proposals=shows_proposals)
        try:
            return await self._answer(http, asked.chat, reply)
        except BadRequest as error:
            rename(error, asked.names)
            raise

    async def _answer(self, http: Request, request: ChatRequest, reply: Reply) -> Response:
        key: Key = http.scope[KEY]
        recipe = self._recipe_for(request, key)
        sampling = asked_sampling(request, recipe, key)
        # From the inside out: the events of the answer, while the request holds its part of the models'
        # capacity; a response made of these events; and the end of both if the client leaves.
        events = self._admitted_events(http, request, sampling, recipe, reply)
        if request.stream:
            return await self._stream(http, request, reply, events)
        return await while_connected(http.receive, _whole(reply, events))

    def _recipe_for(self, request: ChatRequest, key: Key) -> Recipe:
        """The recipe by which the request is answered: with the aggregator that the request chooses.

        Raises:
            UnknownModel: the key may not use the model, or no model has that name.
            BadRequest: see `chosen_recipe`.
        """
        self._served.require(request.model, key)
        fuse = request.moa.fuse
        if fuse is None:
            return self._recipe
        return chosen_recipe(fuse, request.model, self._recipe, self._served.names(key))

    def _admitted_events(
        self, http: Request, request: ChatRequest, sampling: Sampling, recipe: Recipe, reply: Reply
    ) -> AsyncGenerator[Event]:
        """The events of the answer. The request is admitted, or refused, before the first one."""
        key: Key = http.scope[KEY]
        clock = asyncio.get_running_loop().time
        fuse = request.moa.fuse
        demand = Demand(
            key,
            calls_at_once(recipe, len(fuse.proposals))
            if fuse
            else recipe.calls_at_once(request.answers),
            sampling.most_tokens,
            shares_capacity=self._authenticator.has_several_keys(clock()),
        )
        asked = Asked(
            request_id=request_id(http.scope),
            key=key.name,
            model=request.model,
            is_mixture=self._is_of_mixture(request),
            is_stream=bool(request.stream),
            traceparent=_only(http.headers.getlist("traceparent")),
            tracestate=",".join(http.headers.getlist("tracestate")) or None,
            routed=None if request.routed is None else request.routed.model,
        )

        def begin() -> Watcher:
            http.scope[WATCHED] = True
            return self._observer.begin(asked)

        work = self._work(request, sampling, recipe, reply)
        models = on_behalf(self._models, {REQUEST: asked.request_id})
        events = watched(lambda w: work(watched_calls(models, w)), begin, clock)
        return admitted_events(events, self._admission, demand, clock)

    def _work(
        self, request: ChatRequest, sampling: Sampling, recipe: Recipe, reply: Reply
    ) -> Callable[[Models], AsyncGenerator[Event]]:
        """A function that gives the events of the answer, over models that it is given.

        Raises:
            BadRequest: the mixture is asked for logprobs.
        """
        messages = request.conversation()
        streamed = bool(request.stream)
        if not self._is_of_mixture(request):
            routed = request.routed is not None
            return lambda models: moa.direct(
                messages,
                recipe,
                models,
                request.answers,
                sampling,
                fallbacks=self._router.fallbacks(request.answers) if routed else (),
                streamed=streamed,
                in_calls=request.in_calls,
            )
        if request.logprobs:
            message = f"the mixture {recipe.name!r} gives no logprobs; ask one of its models directly"
            raise BadRequest(message, param="logprobs")
        fuse = request.moa.fuse
        given = [(each.model, each.text) for each in fuse.proposals] if fuse else ()
        proposals = given_proposals(recipe, given, fuse.places if fuse else ())
        return lambda models: moa.answer(
            messages,
            recipe,
            models,
            sampling=sampling,
            seed=request.seed,
            streamed=streamed,
            stream_proposals=streamed and reply.shows_growth,
            in_pieces=not reply.shows_tokens,
            given=proposals,
            in_calls=request.in_calls,
        )

    async def _stream(
        self, http: Request, request: ChatRequest, reply: Reply, events: AsyncGenerator[Event]
    ) -> Response:
        """The response of a stream, once the stream may open."""
        chunks = self._chunks(request, reply, events)
        try:
            await while_connected(http.receive, _opening(chunks))
        except BaseException:
            await chunks.aclose()
            raise
        return EventStreamResponse(chunks, self._recipe.limits.write_timeout_s)

    async def _chunks(
        self, request: ChatRequest, reply: Reply, events: AsyncGenerator[Event]
    ) -> AsyncGenerator[str]:
        """The chunks of a stream, together where their events came together. Before the chunks stands
        one empty item that says: the stream may open now.

        An error before the empty item is answered with its own HTTP status. An error after the empty
        item is the end of the stream.

        1. A stream of the mixture opens with the first event, which comes before any proposal.
        2. A stream of one model also waits for the next event, as a rule its first token, or for one
           keep-alive interval. So if the model fails at once, the answer has the status of its error.
        """
        async with aclosing(with_keepalives(events, self._recipe.limits.keepalive_s)) as waiting:
            first = await anext(waiting)  # 1
            opening = reply.role() + reply.chunks(first)
            if not self._is_of_mixture(request) and len(first) == 1:  # 2
                opening += reply.chunks(await anext(waiting))
            yield ""
            yield opening
            try:
                async for batch in waiting:
                    if chunks := reply.chunks(batch):
                        yield chunks
            except RequestError as error:
                yield reply.error(error)
            except Exception as error:
                logger.error("%s", safe_traceback(error))
                yield reply.error(RequestError(f"internal error ({type(error).__name__})"))


def _only(values: Sequence[str]) -> str | None:
    """The value of a header that may come once; None if it is missing, or came several times."""
    return values[0] if len(values) == 1 else None


async def _opening(chunks: AsyncGenerator[str]) -> None:
    """Wait for the empty item of `_chunks`."""
    await anext(chunks)


async def _whole(reply: Reply, events: AsyncGenerator[Event]) -> Response:
    """The answer in one piece, once all its events have come."""
    collected = [event async for event in events]
    done = collected[-1]
    assert isinstance(done, AnswerDone)
    headers = {"x-slimmoa-degraded": str(done.summary.degraded).lower()}
    body = reply.whole(collected, done.summary)
    return Response(body, media_type="application/json", headers=headers)
