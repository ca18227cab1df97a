"""Any OpenAI-compatible server as an engine, over HTTP with streaming.

Retries happen only before the first token: after it a second attempt would repeat text.
"""

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp

from actors.engine import Delta, FinishReason, Message
from actors.errors import BadRequest, ContextTooLong, EngineError, EngineUnavailable, Overloaded
from configs.schema import OpenAIHttpModel, Sampling

RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})
TEMPLATE_TOKENS = 8  # a chat template's own tokens around one message, at most, in known templates
MOST_BACKOFF_S = 30.0


def create(name: str, model: OpenAIHttpModel, threads: int) -> "OpenAIHttpEngine":  # noqa: ARG001
    """For the registry."""
    return OpenAIHttpEngine(name, model)


class _Retriable(Exception):
    """An attempt failed in a way that another may not. after_s: what Retry-After asked for."""

    def __init__(self, cause: EngineError | EngineUnavailable | Overloaded, after_s: float) -> None:
        super().__init__(cause.message)
        self.cause = cause
        self.after_s = after_s


class OpenAIHttpEngine:
    """One model of one server."""

    def __init__(self, name: str, model: OpenAIHttpModel) -> None:
        self._name = name
        self._model = model
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        headers = {}
        if variable := self._model.api_key_env:
            key = os.environ.get(variable)
            if not key:
                message = f"environment variable {variable} (api_key_env) is not set"
                raise EngineUnavailable(message, model=self._name)
            headers["Authorization"] = f"Bearer {key}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=self._model.connect_timeout_s,
                sock_read=self._model.read_timeout_s,
            ),
        )

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[Delta]:
        request = self._request(messages, sampling)
        for attempt in range(self._model.retries + 1):
            try:
                async for delta in self._attempt(request):
                    yield delta
                return
            except _Retriable as failure:
                if attempt == self._model.retries:
                    raise failure.cause from failure
                backoff = self._model.backoff_s * 2**attempt * random.uniform(0.75, 1.25)
                wait = max(backoff, failure.after_s)
            await asyncio.sleep(min(wait, MOST_BACKOFF_S))

    async def _attempt(self, request: dict[str, Any]) -> AsyncIterator[Delta]:
        started = False
        try:
            async with self._post(request) as response:
                if response.status != 200:
                    raise await self._refusal(response)
                async for line in response.content:
                    if line.startswith(b"data:") and (data := line[5:].strip()) != b"[DONE]":
                        for delta in self._deltas(data):
                            started = True
                            yield delta
        except (aiohttp.ClientError, TimeoutError) as error:
            what = "no answer in time" if isinstance(error, TimeoutError) else str(error)
            message = f"{self._model.base_url}: {what or type(error).__name__}"
            failure = EngineError if started else EngineUnavailable
            cause = failure(message, model=self._name)
            if started:
                raise cause from error
            raise _Retriable(cause, 0) from error

    def _post(self, request: dict[str, Any]) -> Any:
        if self._session is None:
            raise EngineUnavailable("the HTTP engine is stopped", model=self._name)
        url = self._model.base_url.rstrip("/") + "/chat/completions"
        return self._session.post(url, json=request)

    def _request(self, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self._model.model,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self._model.output_limit: sampling.max_tokens,
        }
        for field in ("seed", "presence_penalty", "frequency_penalty"):
            if value := getattr(sampling, field):  # some servers refuse even the defaults
                request[field] = value
        if sampling.stop:
            request["stop"] = list(sampling.stop)
        if sampling.top_logprobs is not None:
            request |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
        return request

    def _deltas(self, data: bytes) -> list[Delta]:
        try:
            chunk = json.loads(data)
        except ValueError as error:
            message = f"{self._model.base_url} sent what is not JSON: {data[:80]!r}"
            raise EngineError(message, model=self._name) from error
        if chunk.get("error"):
            raise EngineError(_message(chunk["error"]), model=self._name)
        usage = chunk.get("usage") or {}
        choice = (chunk.get("choices") or [{}])[0]
        part = choice.get("delta") or {}
        delta = Delta(
            text=part.get("content") or "",
            reasoning=part.get("reasoning_content") or part.get("reasoning") or "",
            finish_reason=_finish(choice.get("finish_reason")),
            prompt_tokens=usage.get("prompt_tokens") or 0,
            completion_tokens=usage.get("completion_tokens") or 0,
            logprobs=tuple((choice.get("logprobs") or {}).get("content") or ()),
        )
        return [] if delta == Delta() else [delta]

    async def _refusal(self, response: aiohttp.ClientResponse) -> Exception:
        body = await response.text(errors="replace")
        try:
            error = json.loads(body)["error"]
        except (ValueError, KeyError, TypeError):
            error = body[:300] or response.reason
        message = f"{self._model.base_url} answered {response.status}: {_message(error)}"
        if response.status in RETRIED_STATUS:
            failure = Overloaded if response.status == 429 else EngineError
            after = response.headers.get("Retry-After", "")
            cause = failure(message, model=self._name)
            return _Retriable(cause, float(after) if after.isdigit() else 0)
        code = error.get("code") if isinstance(error, dict) else None
        if code == ContextTooLong.code:
            return ContextTooLong(message, model=self._name, param="messages")
        if response.status == 400:
            return BadRequest(message, model=self._name)
        return EngineError(message, model=self._name)

    async def token_ends(self, prompt: str | Sequence[Message]) -> list[int]:
        """Estimated: the server's tokenizer is not known here."""
        if isinstance(prompt, str):
            return self._estimate(prompt)
        texts = "".join(message["content"] for message in prompt)
        ends = self._estimate(texts)
        return ends + [len(texts)] * (TEMPLATE_TOKENS * (len(prompt) + 1))

    def _estimate(self, text: str) -> list[int]:
        step, count = self._model.characters_per_token, len(text)
        ends = [min(count, round(n * step)) for n in range(1, int(count / step) + 1)]
        return ends if ends[-1:] == [count] or not count else [*ends, count]

    async def check(self) -> None:
        """The server's health is not the replica's: a call finds out, and other models go on."""

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def _finish(reason: str | None) -> FinishReason | None:
    if reason is None:
        return None
    return "length" if reason == "length" else "stop"


def _message(error: Any) -> str:
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)
