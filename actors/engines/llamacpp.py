"""llama.cpp inside this process, through xllamacpp: GGUF weights, continuous batching.

Facts that shape it, tested on xllamacpp 2026.10.11549:
- Calls block their thread, so each runs in a thread of our own pool and its chunks come back through
  the event loop. Returning True from the callback cancels a call.
- The callback runs only when a chunk arrives. `return_progress` makes one arrive after each prefill
  step of `n_batch` tokens, so a call can be cancelled during its prefill too.
- Each Server opens an HTTP port without authentication. We move it to a socket in a folder that only
  this user can enter, protect it with a random key, and use it for what the library lacks: tokens.
"""

import asyncio
import json
import secrets
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import xllamacpp

from actors.engine import Delta, Message
from actors.errors import BadRequest, ContextTooLong, EngineError, EngineUnavailable
from actors.weights import fetch
from configs.schema import LlamaCppModel, Sampling


def create(name: str, model: LlamaCppModel, threads: int) -> "LlamaCppEngine":
    """For the registry."""
    return LlamaCppEngine(name, model, threads)


class LlamaCppEngine:
    """One GGUF model. `threads`: CPU threads for prefill and decode."""

    def __init__(self, name: str, model: LlamaCppModel, threads: int) -> None:
        self._name = name
        self._model = model
        self._threads = max(1, threads)
        self._server: Any = None
        self._http: aiohttp.ClientSession | None = None
        self._folder: Path | None = None
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(model.concurrency, thread_name_prefix=f"llama-{name}")

    async def start(self) -> None:
        path = await asyncio.to_thread(fetch, self._name, self._model.weights)
        # Not under TMPDIR, which may be long: a Unix socket's path may have about 100 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="slimmoa-", dir="/tmp"))
        socket, key = self._folder / "llama.sock", secrets.token_urlsafe(32)
        try:
            params = self._params(path, socket, key)
            self._server = await asyncio.to_thread(xllamacpp.Server, params)
        except RuntimeError as error:
            await self.stop()
            message = f"llama.cpp cannot load {path.name}: {error}"
            raise EngineUnavailable(message, model=self._name) from error
        self._http = aiohttp.ClientSession(
            "http://llama",
            connector=aiohttp.UnixConnector(str(socket)),
            headers={"Authorization": f"Bearer {key}"},
        )

    def _params(self, path: Path, socket: Path, key: str) -> Any:
        model, params = self._model, xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = model.context_tokens * model.concurrency
        params.n_parallel = model.concurrency
        params.n_batch = params.n_ubatch = model.prefill_tokens
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._threads
        params.cache_ram_mib = 0  # its default may grow to 8 GB
        params.verbosity = -1
        params.hostnames = [str(socket)]
        params.n_threads_http = 1
        params.api_keys = [key]
        params.endpoint_metrics = True
        return params

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[Delta]:
        await self.check()
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[dict[str, Any] | Exception | None] = asyncio.Queue()
        cancelled = threading.Event()
        request = json.dumps(_request(messages, sampling))
        server = self._server

        def put(item: dict[str, Any] | Exception | None) -> None:
            loop.call_soon_threadsafe(chunks.put_nowait, item)

        def on_chunk(chunk: Any) -> bool:
            if cancelled.is_set() or self._stopping.is_set():
                return True
            put(json.loads(chunk) if isinstance(chunk, str | bytes) else chunk)
            return False

        def call() -> None:
            try:
                server.handle_chat_completions(request, on_chunk)
            except Exception as error:  # whatever the native side raises ends this one call
                put(error)
            else:
                put(None)

        work = loop.run_in_executor(self._pool, call)
        try:
            while (chunk := await chunks.get()) is not None:
                if isinstance(chunk, Exception):
                    raise EngineError(f"llama.cpp: {chunk}", model=self._name) from chunk
                if (delta := self._delta(chunk)) is not None:
                    yield delta
            if self._stopping.is_set():
                raise EngineUnavailable("llama.cpp was stopped", model=self._name)
        finally:
            cancelled.set()
            await _finished(work)

    def _delta(self, chunk: dict[str, Any]) -> Delta | None:
        if "error" in chunk:
            raise self._error(chunk["error"])
        usage = chunk.get("usage") or {}
        choice = (chunk.get("choices") or [{}])[0]
        part = choice.get("delta") or {}
        delta = Delta(
            text=part.get("content") or "",
            reasoning=part.get("reasoning_content") or "",
            finish_reason=choice.get("finish_reason"),
            prompt_tokens=usage.get("prompt_tokens", 0),
            completion_tokens=usage.get("completion_tokens", 0),
            logprobs=tuple((choice.get("logprobs") or {}).get("content") or ()),
        )
        return None if delta == Delta() else delta

    def _error(self, error: dict[str, Any]) -> EngineError | BadRequest:
        message = str(error.get("message", error))
        if error.get("type") == "exceed_context_size_error":
            return ContextTooLong(message, model=self._name, param="messages")
        if error.get("code") == 400:
            return BadRequest(message, model=self._name)
        return EngineError(message, model=self._name)

    async def token_ends(self, prompt: str | Sequence[Message]) -> list[int]:
        if not isinstance(prompt, str):
            answer = await self._post("/apply-template", {"messages": list(prompt)})
            special = {"parse_special": True, "add_special": True}
            return await self._token_ends(answer["prompt"], **special)
        return await self._token_ends(prompt)

    async def _token_ends(self, text: str, **options: bool) -> list[int]:
        body = {"content": text, "with_pieces": True, **options}
        answer = await self._post("/tokenize", body)
        ends, seen = [], b""
        for token in answer["tokens"]:
            piece = token["piece"]
            seen += piece.encode() if isinstance(piece, str) else bytes(piece)
            ends.append(len(seen))
        # Bytes to characters: a character split over tokens ends with its last byte.
        starts = [n for n, byte in enumerate(seen) if byte & 0xC0 != 0x80]
        return _characters(ends, [*starts[1:], len(seen)])

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        await self.check()
        assert self._http is not None
        try:
            async with self._http.post(path, json=body) as response:
                answer = await response.json()
        except aiohttp.ClientError as error:
            raise EngineUnavailable(f"llama.cpp: {error}", model=self._name) from error
        if "error" in answer:
            raise self._error(answer["error"])
        return answer

    async def check(self) -> None:
        if self._server is None:
            raise EngineUnavailable("llama.cpp is not running", model=self._name)

    async def stop(self) -> None:
        self._stopping.set()
        if self._http is not None:
            await self._http.close()
        # Dropping the last reference unloads the model; calls under way hold one until they end.
        self._server = self._http = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._pool.shutdown(wait=False, cancel_futures=True)


def _request(messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
    request: dict[str, Any] = {
        "messages": list(messages),
        "stream": True,  # a call that is not streamed cannot be cancelled
        "stream_options": {"include_usage": True},
        "return_progress": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": 0,  # llama.cpp's own defaults of top_k and min_p would sample otherwise than
        "min_p": 0,  # what the recipe says
        "max_tokens": sampling.max_tokens,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
    }
    if sampling.stop:
        request["stop"] = list(sampling.stop)
    if sampling.seed is not None:
        request["seed"] = sampling.seed % (2**32 - 1)  # the last one means random there
    if sampling.top_logprobs is not None:
        request |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
    return request


def _characters(byte_ends: list[int], character_ends: list[int]) -> list[int]:
    """How many characters end at or before each of the byte positions; both lists ascend."""
    counts, done = [], 0
    for end in byte_ends:
        while done < len(character_ends) and character_ends[done] <= end:
            done += 1
        counts.append(done)
    return counts


async def _finished(work: asyncio.Future[None]) -> None:
    """Wait for the native call, even if cancelled meanwhile: only then is its slot free."""
    cancellation = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        raise cancellation
