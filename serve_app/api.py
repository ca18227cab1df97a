"""The OpenAI-compatible HTTP API: an ordinary FastAPI app that knows nothing of Ray."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol, cast

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from openai.types import Model as ModelCard
from starlette.exceptions import HTTPException
from starlette.types import Send

from actors.errors import BadRequest, SlimMoAError, TooLarge, UnknownModel
from actors.replica import ReplicaStats
from configs.schema import Recipe, Sampling
from serve_app import moa
from serve_app.budget import Models
from serve_app.events import AnswerDelta, AnswerDone, Event
from serve_app.reply import KEEPALIVE, Reply, error_body
from serve_app.request import ChatRequest, parse

READY_S = 2.0

logger = logging.getLogger(__name__)


class Backend(Models, Protocol):
    """The recipe's models, and whether they are there."""

    async def stats(self, model: str) -> ReplicaStats:
        """What one replica of the model has done; raises SlimMoAError if there is none."""


class _ClosingStream(StreamingResponse):
    """Closes its generator when the client is gone: Starlette would leave that to the garbage
    collector, and the engines would work on."""

    async def stream_response(self, send: Send) -> None:
        async with aclosing(cast("AsyncGenerator[str]", self.body_iterator)):
            await super().stream_response(send)


def create_api(recipe: Recipe, backend: Backend) -> FastAPI:
    """The app that serves `recipe` through `backend`."""
    api = FastAPI(title="SlimMoA", summary=recipe.description or None)
    created = int(time.time())
    names = {recipe.name: "slimmoa", **{n: m.engine for n, m in recipe.models.items()}}
    cards = {
        name: ModelCard(id=name, created=created, object="model", owned_by=owner).model_dump()
        for name, owner in names.items()
    }
    api.add_exception_handler(SlimMoAError, _on_error)
    api.add_exception_handler(HTTPException, _on_http_error)
    api.add_exception_handler(Exception, _on_defect)

    @api.post("/v1/chat/completions", openapi_extra=_request_schema())
    async def chat_completions(http: Request) -> Response:
        """Answer a conversation with the mixture, or with one of its models by name."""
        request = parse(await _body(http, recipe.limits.max_body_bytes))
        events = _paced(_answer(request, recipe, backend), recipe.limits.keepalive_s)
        reply = Reply(uuid.uuid4().hex, request.model, extra=request.moa.events)
        return await (_stream if request.stream else _whole)(request, recipe, events, reply)

    @api.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """The mixture under its own name, and every model of it."""
        return {"object": "list", "data": list(cards.values())}

    @api.get("/v1/models/{model}")
    async def get_model(model: str) -> dict[str, Any]:
        """One of them."""
        if model not in cards:
            raise _unknown(model, recipe)
        return cards[model]

    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The ingress is alive."""
        return {"status": "ok"}

    @api.get("/readyz")
    async def readyz() -> JSONResponse:
        """Whether the mixture can answer now, and the state of each model."""
        return await _readiness(recipe, backend)

    return api


def _request_schema() -> dict[str, Any]:
    schema = ChatRequest.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _unknown(model: str, recipe: Recipe) -> UnknownModel:
    known = ", ".join([recipe.name, *recipe.models])
    return UnknownModel(f"no model {model!r} here; there are {known}", param="model")


async def _body(http: Request, most: int) -> bytes:
    body = bytearray()
    async for part in http.stream():
        body += part
        if len(body) > most:
            raise TooLarge(f"the body is larger than {most} bytes (limits.max_body_bytes)")
    return bytes(body)


def _answer(request: ChatRequest, recipe: Recipe, backend: Backend) -> AsyncGenerator[Event]:
    messages = request.conversation()
    if request.model == recipe.name:
        if request.logprobs:
            message = f"the mixture {recipe.name!r} gives no logprobs; ask one of its models directly"
            raise BadRequest(message, param="logprobs")
        sampling = request.sampling(recipe.aggregator.sampling)
        return moa.answer(messages, recipe, backend, sampling=sampling, seed=request.seed)
    if request.model not in recipe.models:
        raise _unknown(request.model, recipe)
    return moa.direct(messages, recipe, backend, request.model, request.sampling(Sampling()))


async def _paced(events: AsyncGenerator[Event], interval_s: float) -> AsyncGenerator[Event | None]:
    """The events, and None whenever none has come for the interval. Closing it closes them."""
    following: asyncio.Future[Event | None] | None = None
    try:
        while True:
            following = asyncio.ensure_future(anext(events, None))
            while not (await asyncio.wait([following], timeout=interval_s))[0]:
                yield None
            if (event := following.result()) is None:
                return
            yield event
    finally:
        if following is not None:
            following.cancel()
            await asyncio.wait([following])
        await events.aclose()


async def _whole(
    request: ChatRequest,  # noqa: ARG001  # one signature with _stream
    recipe: Recipe,  # noqa: ARG001
    paced: AsyncGenerator[Event | None],
    reply: Reply,
) -> Response:
    seen: list[Event] = []
    async with aclosing(paced) as events:
        async for event in events:
            if event is not None:
                seen.append(event)
    done = seen[-1]
    assert isinstance(done, AnswerDone)
    deltas = [event.delta for event in seen if isinstance(event, AnswerDelta)]
    headers = {"x-slimmoa-degraded": str(done.summary.degraded).lower()}
    body = reply.whole(deltas, seen, done.summary)
    return Response(body, media_type="application/json", headers=headers)


async def _stream(
    request: ChatRequest, recipe: Recipe, paced: AsyncGenerator[Event | None], reply: Reply
) -> Response:
    """Open the stream once the request is known to be good.

    The mixture's stream opens then, so that its role chunk comes before any proposal. A single
    model's waits for its first token too, or one keep-alive interval, so that a failure before it
    keeps its HTTP status.
    """
    try:
        first = [await anext(paced)]
        if request.model != recipe.name:
            first.append(await anext(paced))
    except BaseException:
        await paced.aclose()
        raise
    options = request.stream_options
    usage = options is not None and options.include_usage

    async def chunks() -> AsyncIterator[str]:
        async with aclosing(paced):
            yield reply.role()
            try:
                for event in first:
                    yield _said(reply, event, usage)
                async for event in paced:
                    yield _said(reply, event, usage)
            except SlimMoAError as error:
                yield reply.error(error)
            except Exception as error:
                logger.exception("in a stream")
                yield reply.error(SlimMoAError(f"internal error ({type(error).__name__})"))

    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return _ClosingStream(chunks(), media_type="text/event-stream", headers=headers)


def _said(reply: Reply, event: Event | None, usage: bool) -> str:
    if event is None:
        return KEEPALIVE
    if isinstance(event, AnswerDone):
        return reply.end(event.summary, include_usage=usage)
    return reply.event(event)


async def _readiness(recipe: Recipe, backend: Backend) -> JSONResponse:
    async def state(model: str) -> str:
        try:
            async with asyncio.timeout(READY_S):
                await backend.stats(model)
        except TimeoutError:
            return "not up"
        except SlimMoAError as error:
            return error.message
        return "ready"

    states = dict(zip(recipe.models, await asyncio.gather(*map(state, recipe.models)), strict=True))
    up = {model for model, said in states.items() if said == "ready"}
    proposals = sum(p.samples for p in recipe.layers[0].proposers if p.model in up)
    aggregators = {recipe.aggregator.model, *recipe.aggregator.fallbacks}
    ready = bool(aggregators & up) and proposals >= recipe.limits.quorum
    return JSONResponse({"ready": ready, "models": states}, status_code=200 if ready else 503)


async def _on_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SlimMoAError)
    headers = {"Retry-After": "1"} if error.status in (429, 503) else None
    return JSONResponse(error_body(error), status_code=error.status, headers=headers)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    ours = BadRequest(f"{request.method} {request.url.path}: {error.detail}")
    return JSONResponse(error_body(ours), status_code=error.status_code, headers=error.headers)


async def _on_defect(_request: Request, error: Exception) -> JSONResponse:
    ours = SlimMoAError(f"internal error ({type(error).__name__}); the server's log says more")
    return JSONResponse(error_body(ours), status_code=500)
