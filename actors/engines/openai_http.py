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
import os
import random
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from actors.engine import NONE, Delta, Message, Share, merge
from actors.engines.http_events import MOST_PAGE_BYTES, EventReader
from actors.engines.http_secrets import Secrets
from actors.engines.openai_answer import NOTHING, StreamedAnswer
from actors.engines.openai_chunks import read_chunk
from actors.engines.openai_errors import Fault, fault_of_page, fault_of_response, words_of_body
from actors.engines.openai_request import Habits, advice, request_body
from actors.engines.sse import EventTooLong
from actors.engines.token_estimate import estimated_ends, prompt_ends
from actors.origin import trace_headers
from actors.text.control_tokens import Defuser, known
from actors.text.thinking import Splitter, without_leading_thought
from actors.text.thinking_marks import families_of
from actors.text.turns import REFUSES, is_of_template, words_of_template
from configs.errors import (
    BadRequest,
    ContextTooLong,
    EngineError,
    EngineUnavailable,
    RequestError,
    ServerUnreachable,
    TemplateRefused,
)
from configs.schema import OpenAIHttpModel, Sampling
from configs.urls import is_this_machine

MOST_BACKOFF_S = 30.0
"""Longest wait before another attempt, in seconds, even if the server's Retry-After asks for more."""
MOST_ERROR_CHARACTERS = 500
"""Most characters of a server's error that our messages repeat: the error may be a whole web page."""
COUNTS_S = 5.0
"""Longest silence, in seconds, between the end of an answer and what follows the end: its token counts,
and the mark `[DONE]`, which some servers leave out."""
CONNECTION_ERRORS = (aiohttp.ClientError, TimeoutError, RuntimeError)
"""Errors of a broken connection. aiohttp raises RuntimeError for a read from a closed session."""
DONE = b"[DONE]"
"""The data of the event that ends a stream in OpenAI's format."""


def create(name: str, model: OpenAIHttpModel, share: Share) -> "OpenAIHttpEngine":  # noqa: ARG001
    """Create the engine without starting it."""
    return OpenAIHttpEngine(name, model)


class _Failed(Exception):
    """An attempt failed before the first delta, and another attempt may succeed."""

    def __init__(self, cause: RequestError, fault: Fault | None, *, is_retriable: bool) -> None:
        super().__init__(cause.message)
        self.cause = cause
        """The error that the caller gets if no attempt is left."""
        self.fault = fault
        """What the server said; None if the connection broke."""
        self.is_retriable = is_retriable
        """Whether the very same call may succeed later."""


class OpenAIHttpEngine:
    """One model on one server."""

    def __init__(self, name: str, model: OpenAIHttpModel) -> None:
        self._name = name
        self._model = model
        self._secrets = Secrets(name, model)
        self._habits = Habits()
        self._session: aiohttp.ClientSession | None = None
        self._stopped = asyncio.Event()
        self._families = families_of(model.reasoning_format, None)
        tokens = model.control_tokens
        self._defuser = known() if tokens is None else Defuser(tokens)

    def _harmless(self, messages: Sequence[Message]) -> list[Message]:
        """The messages without what the server's model would read as control tokens."""
        return self._defuser.harmless(without_leading_thought(messages, self._families))

    async def start(self) -> None:
        headers = self._secrets.headers()
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
        habits = self._habits
        attempts = 0
        while True:
            answer = StreamedAnswer(splitter=Splitter(self._families))
            request = request_body(self._model, harmless, sampling, habits)
            try:
                async with aclosing(self._attempt(request, answer, streamed)) as deltas:
                    async for delta in deltas:
                        if habits is not self._habits:
                            habits = self._habits = self._habits | habits
                        yield delta
                break
            except _Failed as failure:
                if (learned := self._learned(failure, habits, request, harmless)) is not None:
                    habits = learned
                    continue
                wait_s = self._wait_before_retry(failure, attempts)
                attempts += 1
            with suppress(TimeoutError):  # `stop` ends the wait
                await asyncio.wait_for(self._stopped.wait(), wait_s)
        ratio = self._model.characters_per_token
        yield answer.final_delta(lambda: len(prompt_ends(harmless, ratio)), ratio)

    def _learned(
        self,
        failure: _Failed,
        habits: Habits,
        request: dict[str, Any],
        messages: Sequence[Message],
    ) -> Habits | None:
        """How the call may succeed if it is asked otherwise; None if there is no such way."""
        if failure.fault is None or isinstance(failure.cause, ContextTooLong):
            return None
        return habits.after(failure.fault, request, messages)

    def _wait_before_retry(self, failure: _Failed, attempts: int) -> float:
        """Seconds to wait before another attempt; raises the failure's cause if none is left."""
        if attempts == self._model.retries or not failure.is_retriable:
            raise failure.cause from failure
        backoff_s = self._model.backoff_s * 2.0**attempts * random.uniform(0.75, 1.25)
        asked_s = failure.fault.retry_after_s if failure.fault else 0
        return min(max(backoff_s, asked_s), MOST_BACKOFF_S)

    async def _attempt(
        self, request: dict[str, Any], answer: StreamedAnswer, streamed: bool
    ) -> AsyncGenerator[Delta]:
        """Call the server once; raises _Failed if it fails before the first delta."""
        started = False
        try:
            async with self._post(request) as response:
                if not 200 <= response.status < 300:
                    raise await self._refusal(response)
                silence_s = self._model.read_timeout_s
                with EventReader(response, streamed=streamed, silence_s=silence_s) as reader:
                    while not answer.is_complete and (events := await _next(reader, answer)):
                        for delta in self._deltas(events, answer, streamed):
                            started = True
                            yield delta
                    if answer.is_complete:
                        await reader.linger()
            if not answer.ended and not answer.is_whole:
                said = "" if answer.texts else words_of_body(answer.unread)
                detail = f"the answer ends early, after {said!r}" if said else "the answer ends early"
                raise fault_of_page(bytes(reader.page)) or aiohttp.ClientPayloadError(detail)
        except Fault as fault:
            raise self._failure(fault, request, started) from fault
        except (*CONNECTION_ERRORS, EventTooLong) as error:
            if not answer.ended:
                raise self._connection_error(error, started) from error

    def _deltas(self, events: list[bytes], answer: StreamedAnswer, streamed: bool) -> Iterable[Delta]:
        """What the events add to the answer: a delta for each, or one for all if not `streamed`."""
        if len(events) == 1:  # nearly always while somebody watches
            delta = self._delta(events[0], answer)
            return () if delta == NOTHING else (delta,)
        return self._of_several(events, answer, streamed)

    def _of_several(
        self, events: list[bytes], answer: StreamedAnswer, streamed: bool
    ) -> Iterator[Delta]:
        together: list[Delta] = []
        for data in events:
            delta = self._delta(data, answer)
            if delta == NOTHING:
                if answer.is_complete:
                    break
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
        return self._session.post(url, json=request, headers=trace_headers(), allow_redirects=False)

    def _delta(self, data: bytes, answer: StreamedAnswer) -> Delta:
        """Add one event of the stream to `answer`; return what the event adds.

        Raises:
            Fault: the event reports an error, or is broken.
        """
        if len(data) < 20 and data.strip(b' \t"').upper() == DONE:
            answer.ended = answer.is_complete = True
            return NOTHING
        try:
            return answer.add(read_chunk(data), data)
        except ValueError as error:
            if b"\n" in data:  # a server that leaves out the blank lines between events
                lines = [self._delta(line, answer) for line in data.split(b"\n") if line.strip()]
                return merge(lines or [NOTHING])
            raise Fault(f"sent what is not a chat chunk: {data[:80]!r}", 502, whole="-") from error

    async def _refusal(self, response: aiohttp.ClientResponse) -> Fault:
        """What a response says whose status is not one of success."""
        body = b""
        with suppress(*CONNECTION_ERRORS):  # the status is known all the same
            while len(body) < MOST_PAGE_BYTES and (more := await response.content.readany()):
                body += more
        return fault_of_response(response.status, response.headers, body, response.reason or "")

    def _failure(self, fault: Fault, request: dict[str, Any], started: bool) -> Exception:
        """The error of a call that the server has refused or failed.

        1. The chat template refuses the conversation: TemplateRefused, in the template's words.
        2. Otherwise the class that the fault's status and words stand for.
        """
        kind, words = fault.kind, fault.words
        if is_of_template(words):  # 1
            kind, words = TemplateRefused, f"{REFUSES}: {words_of_template(words)}"
        if fault.is_answered:
            words = f"answered {fault.status}: {words}"
        message = self._message(words)
        param = None
        if kind is BadRequest:
            message += advice(fault, request)
        elif kind is ContextTooLong:
            param = "messages"
        cause = kind(message, model=self._name, param=param)
        if started:
            return cause
        return _Failed(
            cause, fault, is_retriable=fault.is_retriable and not isinstance(cause, BadRequest)
        )

    def _connection_error(self, error: Exception, started: bool) -> Exception:
        """The error of a call whose connection broke.

        1. The engine was stopped: EngineUnavailable.
        2. The call has returned a delta before: EngineError.
        3. Otherwise: _Failed; its cause is ServerUnreachable.
        """
        if self._session is None:  # 1
            return EngineUnavailable("the HTTP engine was stopped", model=self._name)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            detail = f"no connection within {self._model.connect_timeout_s:g} s"
        elif isinstance(error, TimeoutError):
            detail = f"silent for {self._model.read_timeout_s:g} s"
        elif isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno:
            # aiohttp's own words speak of "ssl:default" where nobody has asked for TLS.
            detail = f"Cannot connect: {os.strerror(error.os_error.errno)}"
        else:
            detail = str(error) or type(error).__name__
        message = self._message(detail)
        if started:  # 2
            return EngineError(message, model=self._name)
        return _Failed(ServerUnreachable(message, model=self._name), None, is_retriable=True)  # 3

    def _message(self, detail: str) -> str:
        """An error message that names the server. A key that the server repeats is masked."""
        return f"{self._model.base_url}: {self._secrets.masked(detail)[:MOST_ERROR_CHARACTERS]}"

    async def token_ends(
        self,
        prompt: str | Sequence[Message],
        template: Mapping[str, Any] = NONE,  # noqa: ARG002
    ) -> list[int]:
        """Estimate where the tokens end: the server's tokenizer is not known here."""
        ratio = self._model.characters_per_token
        if isinstance(prompt, str):
            return estimated_ends(prompt, ratio)
        return prompt_ends(prompt, ratio)

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


async def _next(reader: EventReader, answer: StreamedAnswer) -> list[bytes]:
    """The next events; none at the end of the response, or if nothing follows the end of the answer."""
    if not answer.ended:
        return await reader.read()
    try:
        async with asyncio.timeout(COUNTS_S):
            return await reader.read()
    except TimeoutError:
        return []


def _proxy(server: URL) -> str | None:
    """The URL of the environment's proxy for the server; None if the server needs no proxy.

    aiohttp's `trust_env` does the same, but it also reads ~/.netrc at each call, and it refuses a call
    with an Authorization header to a host that has an entry there. A server on this machine is never
    asked through a proxy, whatever the environment says.
    """
    if is_this_machine(str(server)):
        return None
    return None if proxy_bypass(server.host or "") else getproxies().get(server.scheme)
