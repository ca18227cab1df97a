"""The OpenAI-compatible HTTP API: an ordinary FastAPI app that knows nothing of Ray."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response
from openai.types import Model as ModelCard
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from actors.replica import ReplicaStats
from configs.errors import BadRequest, RequestError, UnknownModel
from configs.schema import Recipe, Sampling
from serve_app.access.admission import AdmissionControl, Demand, admitted_events
from serve_app.access.api_keys import Key
from serve_app.access.auth import KEY, Authenticator, AuthMiddleware
from serve_app.access.replica_counts import CountReplicas, ReplicaCounter
from serve_app.error_response import DefectMiddleware, error_response
from serve_app.http.connection import EventStream, read_body, while_connected, with_keepalives
from serve_app.http.openapi import DescribedApi
from serve_app.http.request import ChatRequest, parse
from serve_app.http.response import ChatResponse, error_body
from serve_app.mixture import moa
from serve_app.mixture.events import AnswerDone, Event
from serve_app.mixture.models import Models
from serve_app.safe_traceback import safe_traceback

READY_S = 2.0

logger = logging.getLogger(__name__)


class Backend(Models, Protocol):
    """The recipe's models, and whether they are there."""

    async def stats(self, model: str) -> ReplicaStats:
        """What one replica of the model has done; raises RequestError if there is none."""


def create_api(
    recipe: Recipe, backend: Backend, env_keys: Sequence[Key] = (), count: CountReplicas | None = None
) -> FastAPI:
    """The app that serves `recipe` through `backend`.

    env_keys: see `Authenticator`; count: see `ReplicaCounter`.

    Raises:
        KeysError: the recipe's file of keys cannot be used.
    """
    api = DescribedApi(recipe)
    created = int(time.time())
    names = {recipe.name: "slimmoa", **{n: m.engine for n, m in recipe.models.items()}}
    cards = {
        name: ModelCard(id=name, created=created, object="model", owned_by=owner).model_dump()
        for name, owner in names.items()
    }
    api.add_exception_handler(RequestError, _on_error)
    api.add_exception_handler(HTTPException, _on_http_error)
    api.add_exception_handler(ClientDisconnect, _on_departure)
    keeper = Authenticator(recipe.access, env_keys)
    _guard(api, keeper, recipe.access.cors_origins)
    ledger = AdmissionControl({name: recipe.capacity_per_replica(name) for name in recipe.models})
    ledger.set_counts({name: model.replicas.min for name, model in recipe.models.items()}, ingresses=1)
    census = ReplicaCounter(ledger, count)

    @api.post("/v1/chat/completions")
    async def chat_completions(http: Request) -> Response:
        """Answer a conversation with the mixture, or with one of its models by name."""
        _check_type(http)
        limits = recipe.limits
        request = parse(await read_body(http, limits.max_body_bytes, limits.read_timeout_s))
        key, clock = http.scope[KEY], asyncio.get_running_loop().time
        sampling = _sampling(request, recipe, key)
        await census.refresh()
        calls, several = recipe.calls_at_once(request.model), keeper.has_several_keys(clock())
        claim = Demand(key, calls, sampling.max_tokens, shares_capacity=several)
        events = admitted_events(_answer(request, recipe, backend, sampling), ledger, claim, clock)
        work = _stream(request, recipe, events) if request.stream else _whole(request, events)
        return await while_connected(http.receive, work)

    @api.get("/v1/models")
    async def list_models(http: Request) -> dict[str, Any]:
        """The mixture under its own name, and every model of it, as far as the key may ask them."""
        return {"object": "list", "data": [cards[name] for name in _names(recipe, http.scope[KEY])]}

    @api.get("/v1/models/{model}")
    async def get_model(http: Request, model: str) -> dict[str, Any]:
        """One of them."""
        _check_model(model, recipe, http.scope[KEY])
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


def _guard(api: FastAPI, keeper: Authenticator, origins: Sequence[str]) -> None:
    """From the inside out: the last one added is the first to see a request."""
    api.add_middleware(AuthMiddleware, keeper)
    if origins:
        # Without credentials: browsers send keys as the header that a page sets, never by themselves.
        api.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["retry-after", "x-slimmoa-degraded"],
        )
    api.add_middleware(DefectMiddleware)


def _check_type(http: Request) -> None:
    """Only JSON: other types a web page may send to any server, even a local one, without its leave."""
    sent = http.headers.get("content-type", "")
    if sent.partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, f"send content-type application/json, not {sent!r:.80}")


def _names(recipe: Recipe, key: Key) -> list[str]:
    """What a key may ask."""
    allowed = key.allowance.models
    return [name for name in (recipe.name, *recipe.models) if allowed is None or name in allowed]


def _check_model(model: str, recipe: Recipe, key: Key) -> None:
    names = _names(recipe, key)
    if model not in names:  # what a key may not ask is not there for it
        raise UnknownModel(f"no model {model!r} here; there are {', '.join(names)}", param="model")


def _sampling(request: ChatRequest, recipe: Recipe, key: Key) -> Sampling:
    """The answer's sampling: the request's, within the key's allowance."""
    _check_model(request.model, recipe, key)
    base = recipe.aggregator.sampling if request.model == recipe.name else Sampling()
    most = key.allowance.max_tokens
    if most is not None:
        base = base.model_copy(update={"max_tokens": min(base.max_tokens, most)})
    sampling = request.sampling(base)
    if most is not None and sampling.max_tokens > most:
        message = f"max_tokens is {sampling.max_tokens}; key {key.name!r} may ask for {most} at most"
        raise BadRequest(message, param="max_tokens")
    return sampling


def _answer(
    request: ChatRequest, recipe: Recipe, backend: Backend, sampling: Sampling
) -> AsyncGenerator[Event]:
    messages = request.conversation()
    streamed = bool(request.stream)
    if request.model != recipe.name:
        return moa.direct(messages, recipe, backend, request.model, sampling, streamed=streamed)
    if request.logprobs:
        message = f"the mixture {recipe.name!r} gives no logprobs; ask one of its models directly"
        raise BadRequest(message, param="logprobs")
    return moa.answer(
        messages,
        recipe,
        backend,
        sampling=sampling,
        seed=request.seed,
        streamed=streamed,
        stream_proposals=streamed and request.moa.events,
    )


async def _whole(request: ChatRequest, events: AsyncGenerator[Event]) -> Response:
    seen = [event async for event in events]
    done = seen[-1]
    assert isinstance(done, AnswerDone)
    headers = {"x-slimmoa-degraded": str(done.summary.degraded).lower()}
    body = ChatResponse(request).whole(seen, done.summary)
    return Response(body, media_type="application/json", headers=headers)


async def _stream(request: ChatRequest, recipe: Recipe, events: AsyncGenerator[Event]) -> Response:
    chunks = _chunks(request, recipe, events)
    await anext(chunks)
    return EventStream(chunks, recipe.limits.write_timeout_s)


async def _chunks(
    request: ChatRequest, recipe: Recipe, events: AsyncGenerator[Event]
) -> AsyncGenerator[str]:
    """The stream, after one empty item once the request is known to be good: what fails before that
    keeps its HTTP status.

    The mixture's stream opens then, so that its role chunk comes before any proposal. A single
    model's waits for its first token too, or one keep-alive interval.
    """
    reply = ChatResponse(request)
    async with aclosing(with_keepalives(events, recipe.limits.keepalive_s)) as waiting:
        first = [await anext(waiting)]
        if request.model != recipe.name:
            first.append(await anext(waiting))
        yield ""
        yield reply.role() + "".join(map(reply.chunk, first))
        try:
            async for event in waiting:
                if chunk := reply.chunk(event):
                    yield chunk
        except RequestError as error:
            yield reply.error(error)
        except Exception as error:
            logger.error("in stream %s: %s", reply.id, safe_traceback(error))
            yield reply.error(RequestError(f"internal error ({type(error).__name__})"))


async def _readiness(recipe: Recipe, backend: Backend) -> JSONResponse:
    async def state(model: str) -> str:
        try:
            async with asyncio.timeout(READY_S):
                await backend.stats(model)
        except TimeoutError:
            return "not up"
        except RequestError as error:
            return error.message
        return "ready"

    states = dict(zip(recipe.models, await asyncio.gather(*map(state, recipe.models)), strict=True))
    up = {model for model, said in states.items() if said == "ready"}
    first_layer = recipe.layers[0].samples_by_model()
    proposals = sum(first_layer[model] for model in up)
    ready = not up.isdisjoint(recipe.aggregators) and proposals >= recipe.limits.quorum
    return JSONResponse({"ready": ready, "models": states}, status_code=200 if ready else 503)


async def _on_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError)
    return error_response(error)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    ours = BadRequest(f"{request.method} {request.url.path}: {error.detail}")
    return JSONResponse(error_body(ours), status_code=error.status_code, headers=error.headers)


async def _on_departure(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)  # as access logs of nginx and Ray Serve have it; nobody reads it
