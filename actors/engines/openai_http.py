"""Any OpenAI-compatible server as an engine, over HTTP with streaming.

Retries happen only before the first token: after it a second attempt would repeat text.
"""

import asyncio
import json
import os
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from pydantic import ValidationError
from yarl import URL

from actors.engine import Delta, Message, Share
from actors.engines import openai_wire as wire
from actors.engines.sse import EventStream, EventTooLong
from configs.errors import (
    BadRequest,
    ContextTooLong,
    EngineError,
    EngineUnavailable,
    Overloaded,
    ServerUnreachable,
)
from configs.schema import OpenAIHttpModel, Sampling

RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})
MOST_BACKOFF_S = 30.0
MOST_SAID = 500  # characters of a server's error that are passed on
DONE = b"[DONE]"
# RuntimeError is aiohttp's for reading on where the session was closed meanwhile.
CONNECTION_ERRORS = (aiohttp.ClientError, TimeoutError, RuntimeError)
LINGER_S = 1.0  # longest wait for the response to end after the answer has


def create(name: str, model: OpenAIHttpModel, share: Share) -> "OpenAIHttpEngine":  # noqa: ARG001
    """For the registry."""
    return OpenAIHttpEngine(name, model)


class _Retriable(Exception):
    """An attempt failed in a way that another may not. after_s: what Retry-After asked for."""

    def __init__(self, cause: EngineError | ServerUnreachable | Overloaded, after_s: float = 0) -> None:
        super().__init__(cause.message)
        self.cause = cause
        self.after_s = after_s


class OpenAIHttpEngine:
    """One model of one server."""

    def __init__(self, name: str, model: OpenAIHttpModel) -> None:
        self._name = name
        self._model = model
        self._key = ""
        self._session: aiohttp.ClientSession | None = None
        self._stopped = asyncio.Event()

    async def start(self) -> None:
        headers = {}
        if variable := self._model.api_key_env:
            self._key = os.environ.get(variable, "").strip()
            if not self._key:
                message = f"environment variable {variable} (api_key_env) is not set"
                raise EngineUnavailable(message, model=self._name)
            headers["Authorization"] = f"Bearer {self._key}"
        self._stopped.clear()
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=0),
            proxy=_proxy(URL(self._model.base_url)),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=self._model.connect_timeout_s, sock_read=self._model.read_timeout_s
            ),
        )

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Delta]:
        answer = wire.Answer()
        async with aclosing(self._with_retries(messages, sampling, answer)) as deltas:
            async for delta in deltas:
                yield delta
        prompt, written = await self.token_ends(messages), await self.token_ends(answer.text)
        yield answer.end(len(prompt), len(written))

    async def _with_retries(
        self, messages: Sequence[Message], sampling: Sampling, answer: wire.Answer
    ) -> AsyncGenerator[Delta]:
        request = wire.request(self._model, messages, sampling)
        for attempt in range(self._model.retries + 1):
            try:
                async with aclosing(self._attempt(request, answer)) as deltas:
                    async for delta in deltas:
                        yield delta
                return
            except _Retriable as failure:
                if attempt == self._model.retries:
                    raise failure.cause from failure
                backoff_s = self._model.backoff_s * 2**attempt * random.uniform(0.75, 1.25)
                wait_s = min(max(backoff_s, failure.after_s), MOST_BACKOFF_S)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), wait_s)

    async def _attempt(self, request: dict[str, Any], answer: wire.Answer) -> AsyncGenerator[Delta]:
        started = False
        try:
            async with self._post(request) as response:
                if response.status != 200:
                    raise await self._refusal(response)
                async with aclosing(_events(response)) as events:
                    async for data in events:
                        if (delta := self._delta(data, answer)) != Delta():
                            started = True
                            yield delta
            if not answer.ended:
                raise aiohttp.ClientPayloadError("the answer ends early")
        except (*CONNECTION_ERRORS, EventTooLong) as error:
            if not answer.ended:
                raise self._broken(error, started) from error

    def _post(self, request: dict[str, Any]) -> Any:
        if self._session is None:
            raise EngineUnavailable("the HTTP engine is stopped", model=self._name)
        url = self._model.base_url.rstrip("/") + "/chat/completions"
        # Following would turn the POST into a GET, or send the conversation somewhere else.
        return self._session.post(url, json=request, allow_redirects=False)

    def _delta(self, data: bytes, answer: wire.Answer) -> Delta:
        if data == DONE:
            answer.ended = True
            return Delta()
        try:
            chunk = wire.Chunk.model_validate_json(data)
        except ValidationError as error:
            message = self._says(f"sent what is not a chat chunk: {data[:80]!r}")
            raise EngineError(message, model=self._name) from error
        if chunk.error:
            failure = ContextTooLong if wire.says_too_long(str(chunk.error)) else EngineError
            raise failure(self._says(wire.error_text(chunk.error)), model=self._name)
        return answer.add(chunk)

    async def _refusal(self, response: aiohttp.ClientResponse) -> Exception:
        status, body = response.status, await response.text(errors="replace")
        try:
            said = wire.error_text(json.loads(body)["error"])
        except (ValueError, LookupError, TypeError):
            said = body or response.headers.get("Location") or response.reason or ""
        message = self._says(f"answered {status}: {said}")
        if status in RETRIED_STATUS:
            cause = (Overloaded if status == 429 else EngineError)(message, model=self._name)
            return _Retriable(cause, wire.retry_after_s(response.headers.get("Retry-After", "")))
        if status in (400, 413, 422):
            if wire.says_too_long(body):
                return ContextTooLong(message, model=self._name, param="messages")
            return BadRequest(message, model=self._name)
        return EngineError(message, model=self._name)

    def _broken(self, error: Exception, started: bool) -> Exception:
        """What a broken connection means to the call."""
        if self._session is None:
            return EngineUnavailable("the HTTP engine was stopped", model=self._name)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            what = f"no connection within {self._model.connect_timeout_s:g} s"
        elif isinstance(error, TimeoutError):
            what = f"silent for {self._model.read_timeout_s:g} s"
        else:
            what = str(error) or type(error).__name__
        if started:
            return EngineError(self._says(what), model=self._name)
        return _Retriable(ServerUnreachable(self._says(what), model=self._name))

    def _says(self, what: str) -> str:
        """A message about the server, without the secrets that it may repeat."""
        if self._key:
            what = what.replace(self._key, "***")
        return f"{self._model.base_url}: {what[:MOST_SAID]}"

    async def token_ends(self, prompt: str | Sequence[Message]) -> list[int]:
        """Estimated: the server's tokenizer is not known here."""
        ratio = self._model.characters_per_token
        if isinstance(prompt, str):
            return wire.estimated_ends(prompt, ratio)
        text = "".join(message["content"] for message in prompt)
        template = [len(text)] * (wire.TEMPLATE_TOKENS * (len(prompt) + 1))
        return wire.estimated_ends(text, ratio) + template

    async def check_health(self) -> None:
        """The server's health is not the replica's: a call finds out, and other models go on."""
        if self._session is None:
            raise EngineUnavailable("the HTTP engine is stopped", model=self._name)

    async def stop(self) -> None:
        self._stopped.set()
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def _events(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
    """The data of each event; of a server that does not stream, its one JSON body."""
    if response.content_type == "application/json":
        yield await response.read()
        return
    stream = EventStream()
    async for received in response.content.iter_any():
        for data in stream.feed(received):
            yield data
            if data == DONE:
                # A response that is read to its end leaves a connection for the next call.
                with suppress(TimeoutError):
                    await asyncio.wait_for(response.content.readany(), LINGER_S)
                return
    for data in stream.end():
        yield data


def _proxy(server: URL) -> str | None:
    """The environment's proxy for the server.

    aiohttp's own `trust_env` would read ~/.netrc at each call, and refuse a host that has a key too.
    """
    return None if proxy_bypass(server.host or "") else getproxies().get(server.scheme)
