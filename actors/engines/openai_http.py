"""Any OpenAI-compatible server as an engine, over HTTP with streaming.

The engine tries a failed call again only before the first token, because a later attempt would repeat
text that the caller already has.

This client is hand-written although `openai` is a dependency. On 2 cores of an AMD EPYC (24 GiB RAM),
`openai.AsyncOpenAI` 3.57 took 2.0 to 3.2 times the CPU time of this client per request of 128 tokens at
concurrency 1, and 3.3 to 5.3 times at concurrency 32 (`python -m benchmarks.speed.http_clients`).
OpenAI's client also returned an empty or cut answer without an error when a server did not stream, sent
an error with status 200 or ended a stream early. The cases are in docs/results.md, "HTTP engine against
OpenAI's client".
"""

import asyncio
import json
import os
import random
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from actors.engine import NONE, Delta, Message, Share, merge
from actors.engines import openai_wire as wire
from actors.engines.http_events import DONE, EventReader
from actors.engines.sse import EventTooLong
from actors.text.control_tokens import Defuser, known
from actors.text.thinking import Splitter, without_leading_thought
from actors.text.thinking_marks import families_of
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
"""HTTP statuses after which another attempt may succeed."""
MOST_BACKOFF_S = 30.0
"""Longest wait before another attempt, in seconds, even if the server's Retry-After asks for more."""
MOST_ERROR_CHARACTERS = 500
"""Most characters of a server's error that our messages repeat: the error may be a whole web page."""
CONNECTION_ERRORS = (aiohttp.ClientError, TimeoutError, RuntimeError)
"""Errors of a broken connection. aiohttp raises RuntimeError for a read from a closed session."""


def create(name: str, model: OpenAIHttpModel, share: Share) -> "OpenAIHttpEngine":  # noqa: ARG001
    """Create the engine without starting it."""
    return OpenAIHttpEngine(name, model)


class _Retriable(Exception):
    """An attempt failed, and another attempt may succeed."""

    def __init__(
        self, cause: EngineError | ServerUnreachable | Overloaded, retry_after_s: float = 0
    ) -> None:
        super().__init__(cause.message)
        self.cause = cause
        """The error that the caller gets if no attempt is left."""
        self.retry_after_s = retry_after_s
        """Seconds that the server's Retry-After header asks us to wait; 0 without such a header."""


class OpenAIHttpEngine:
    """One model on one server."""

    def __init__(self, name: str, model: OpenAIHttpModel) -> None:
        self._name = name
        self._model = model
        self._key = ""
        self._session: aiohttp.ClientSession | None = None
        self._stopped = asyncio.Event()
        self._families = families_of(model.reasoning_format, None)
        tokens = model.control_tokens
        self._defuser = known() if tokens is None else Defuser(tokens)

    def _harmless(self, messages: Sequence[Message]) -> list[Message]:
        """The messages without what the server's model would read as control tokens."""
        return self._defuser.harmless(without_leading_thought(messages, self._families))

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

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncGenerator[Delta]:
        harmless = self._harmless(messages)
        request = wire.request_body(self._model, harmless, sampling)
        answer = wire.StreamedAnswer()
        for attempt in range(self._model.retries + 1):
            answer = wire.StreamedAnswer(splitter=Splitter(self._families))
            try:
                async with aclosing(self._attempt(request, answer, streamed)) as deltas:
                    async for delta in deltas:
                        yield delta
                break
            except _Retriable as failure:
                wait_s = self._wait_before_retry(failure, attempt)
            with suppress(TimeoutError):  # `stop` ends the wait
                await asyncio.wait_for(self._stopped.wait(), wait_s)
        ratio = self._model.characters_per_token
        yield answer.final_delta(lambda: len(wire.prompt_ends(harmless, ratio)), ratio)

    def _wait_before_retry(self, failure: _Retriable, attempt: int) -> float:
        """Seconds to wait before another attempt; raises the failure's cause if none is left."""
        if attempt == self._model.retries:
            raise failure.cause from failure
        backoff_s = self._model.backoff_s * 2.0**attempt * random.uniform(0.75, 1.25)
        return min(max(backoff_s, failure.retry_after_s), MOST_BACKOFF_S)

    async def _attempt(
        self, request: dict[str, Any], answer: wire.StreamedAnswer, streamed: bool
    ) -> AsyncGenerator[Delta]:
        """Call the server once; raises _Retriable if it fails before the first delta."""
        started = False
        try:
            async with self._post(request) as response:
                if response.status != 200:
                    raise await self._refusal(response)
                silence_s = self._model.read_timeout_s
                with EventReader(response, streamed=streamed, silence_s=silence_s) as reader:
                    while events := await reader.read():
                        for delta in self._deltas(events, answer, streamed):
                            started = True
                            yield delta
                    await reader.linger()
            if not answer.ended:
                raise aiohttp.ClientPayloadError("the answer ends early")
        except (*CONNECTION_ERRORS, EventTooLong) as error:
            if not answer.ended:
                raise self._connection_error(error, started) from error

    def _deltas(
        self, events: list[bytes], answer: wire.StreamedAnswer, streamed: bool
    ) -> Iterator[Delta]:
        """What the events add to the answer: a delta for each, or one for all if not `streamed`."""
        together: list[Delta] = []
        for data in events:
            delta = self._delta(data, answer)
            if delta == wire.NOTHING:
                continue
            if streamed:
                yield delta
            else:
                together.append(delta)
        if together:
            yield merge(together)

    def _post(self, request: dict[str, Any]) -> Any:
        if self._session is None:
            raise EngineUnavailable("the HTTP engine is stopped", model=self._name)
        url = self._model.base_url.rstrip("/") + "/chat/completions"
        # A redirect could turn the POST into a GET or send the conversation to another server.
        return self._session.post(url, json=request, allow_redirects=False)

    def _delta(self, data: bytes, answer: wire.StreamedAnswer) -> Delta:
        """Add one event of the stream to `answer`; return what the event adds.

        Raises:
            EngineError: the event is no chat chunk or reports an error.
            ContextTooLong: the event reports that the conversation does not fit the context.
        """
        if data == DONE:
            answer.ended = True
            return wire.NOTHING
        try:
            chunk = wire.read_chunk(data)
        except ValueError as error:
            message = self._message(f"sent what is not a chat chunk: {data[:80]!r}")
            raise EngineError(message, model=self._name) from error
        if chunk.error:
            failure = ContextTooLong if wire.is_context_error(str(chunk.error)) else EngineError
            raise failure(self._message(wire.error_text(chunk.error)), model=self._name)
        return answer.add(chunk)

    async def _refusal(self, response: aiohttp.ClientResponse) -> Exception:
        """The error for a response whose status is not 200.

        1. A status in RETRIED_STATUS: _Retriable; its cause is Overloaded for 429, else EngineError.
        2. 400, 413 or 422: ContextTooLong if the conversation does not fit, BadRequest otherwise.
        3. Every other status: EngineError.
        """
        status, body = response.status, await response.text(errors="replace")
        try:
            detail = wire.error_text(json.loads(body)["error"])
        except (ValueError, LookupError, TypeError):
            detail = body or response.headers.get("Location") or response.reason or ""
        message = self._message(f"answered {status}: {detail}")
        if status in RETRIED_STATUS:  # 1
            cause = (Overloaded if status == 429 else EngineError)(message, model=self._name)
            return _Retriable(cause, wire.retry_after_s(response.headers.get("Retry-After", "")))
        if status in (400, 413, 422):  # 2
            if wire.is_context_error(body):
                return ContextTooLong(message, model=self._name, param="messages")
            return BadRequest(message, model=self._name)
        return EngineError(message, model=self._name)  # 3

    def _connection_error(self, error: Exception, started: bool) -> Exception:
        """The error of a call whose connection broke.

        1. The engine was stopped: EngineUnavailable.
        2. The call has returned a delta before: EngineError.
        3. Otherwise: _Retriable; its cause is ServerUnreachable.
        """
        if self._session is None:  # 1
            return EngineUnavailable("the HTTP engine was stopped", model=self._name)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            detail = f"no connection within {self._model.connect_timeout_s:g} s"
        elif isinstance(error, TimeoutError):
            detail = f"silent for {self._model.read_timeout_s:g} s"
        else:
            detail = str(error) or type(error).__name__
        message = self._message(detail)
        if started:  # 2
            return EngineError(message, model=self._name)
        return _Retriable(ServerUnreachable(message, model=self._name))  # 3

    def _message(self, detail: str) -> str:
        """An error message that names the server. A key that the server repeats is masked."""
        if self._key:
            detail = detail.replace(self._key, "***")
        return f"{self._model.base_url}: {detail[:MOST_ERROR_CHARACTERS]}"

    async def token_ends(
        self,
        prompt: str | Sequence[Message],
        template: Mapping[str, Any] = NONE,  # noqa: ARG002
    ) -> list[int]:
        """Estimate where the tokens end: the server's tokenizer is not known here."""
        ratio = self._model.characters_per_token
        if isinstance(prompt, str):
            return wire.estimated_ends(prompt, ratio)
        return wire.prompt_ends(prompt, ratio)

    async def check_health(self) -> None:
        """Raise EngineUnavailable if the engine is stopped. The server itself is not asked.

        Calls to a server that does not answer fail, but restarting the replica would not mend that.
        """
        if self._session is None:
            raise EngineUnavailable("the HTTP engine is stopped", model=self._name)

    async def stop(self) -> None:
        self._stopped.set()
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _proxy(server: URL) -> str | None:
    """The URL of the environment's proxy for the server; None if the server needs no proxy.

    aiohttp's `trust_env` does the same, but it also reads ~/.netrc at each call, and it refuses a call
    with an Authorization header to a host that has an entry there.
    """
    return None if proxy_bypass(server.host or "") else getproxies().get(server.scheme)
