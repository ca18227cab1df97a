"""llama.cpp inside this process, through xllamacpp: GGUF weights, continuous batching.

Facts that shape this engine, tested on xllamacpp 2026.10.11549:
- A call blocks its thread. So each call runs in a thread of our own pool, and its chunks come back
  through the event loop. A call is cancelled when its callback returns True.
- The callback runs only when a chunk arrives. The option `return_progress` makes a chunk arrive after
  each prefill step of `n_batch` tokens, so a call can be cancelled during its prefill too.
- Each Server opens an HTTP port without authentication, and this cannot be switched off. So we have it
  listen on a Unix socket in a folder that only this user can enter, and protect the socket with a
  random key. We send tokenizing requests to the socket, because the library has no function for them.
"""

import asyncio
import json
import secrets
import threading
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import xllamacpp

from actors.engine import Delta, Message, Share, merge
from actors.engines.llamacpp_call import NativeCall, NativeFailure
from actors.private_folder import PrivateFolder
from actors.weights.files import fetch
from configs.errors import BadRequest, ContextTooLong, EngineError, EngineUnavailable
from configs.schema import LlamaCppModel, Sampling


def create(name: str, model: LlamaCppModel, share: Share) -> "LlamaCppEngine":
    """Create the engine without starting it."""
    return LlamaCppEngine(name, model, share)


class LlamaCppEngine:
    """One GGUF model. It cannot sleep: the only way to free its memory is to stop the engine.

    While the engine is stopped, neither the model nor its tokenizer is loaded. A start is fast while
    the weights are in the page cache of the system.
    """

    def __init__(self, name: str, model: LlamaCppModel, share: Share) -> None:
        self._name = name
        self._model = model
        self._share = share
        self._server: Any = None
        self._http: aiohttp.ClientSession | None = None
        self._folder: PrivateFolder | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._stopping = threading.Event()

    async def start(self) -> None:
        path = await asyncio.to_thread(fetch, self._name, self._model.weights)
        self._folder = PrivateFolder()
        try:
            socket, key = self._folder.path / "llama.sock", secrets.token_urlsafe(32)
            self._server = await asyncio.to_thread(self._load, path, socket, key)
        finally:
            if self._server is None:
                await self.stop()
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(
            self._model.concurrency, thread_name_prefix=f"llama-{self._name}"
        )
        self._http = aiohttp.ClientSession(
            "http://llama",
            connector=aiohttp.UnixConnector(str(socket)),
            headers={"Authorization": f"Bearer {key}"},
        )

    def _load(self, path: Path, socket: Path, key: str) -> Any:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":  # llama.cpp would not say why
                raise EngineUnavailable(f"{path} is not a GGUF file", model=self._name)
        try:
            return xllamacpp.Server(self._params(path, socket, key))
        except RuntimeError as error:
            message = f"llama.cpp cannot load {path}: {error}"
            raise EngineUnavailable(message, model=self._name) from error

    def _params(self, path: Path, socket: Path, key: str) -> Any:
        model, params = self._model, xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = model.context_tokens * model.concurrency
        params.n_parallel = model.concurrency
        # With less than a token per sequence, the native side ends the whole process.
        params.n_batch = params.n_ubatch = max(model.prefill_tokens, model.concurrency)
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._share.threads
        params.n_gpu_layers = (
            -1 if self._share.on_gpu else 0
        )  # all layers, if this build of llama.cpp can use a GPU
        params.cache_ram_mib = 0  # by default this cache may grow to 8 GB
        params.verbosity = -1
        params.hostnames = [str(socket)]
        params.n_threads_http = 1
        params.api_keys = [key]
        params.endpoint_metrics = True
        return params

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncGenerator[Delta]:
        await self.check_health()
        assert self._pool is not None
        stopping = self._stopping
        request = json.dumps(_request(messages, sampling))
        call = NativeCall(self._server, request, stopping, streamed)
        try:
            async with aclosing(call.run(self._pool)) as crossings:
                async for chunks in crossings:
                    deltas = [self._delta(chunk, sampling) for chunk in chunks]
                    if (together := merge(deltas)) != Delta():
                        yield together
        except NativeFailure as error:
            raise EngineError(f"llama.cpp: {error}", model=self._name) from error
        if stopping.is_set():
            raise EngineUnavailable("llama.cpp was stopped", model=self._name)

    def _delta(self, chunk: dict[str, Any], sampling: Sampling) -> Delta:
        if "error" in chunk:
            raise self._error(chunk["error"])
        usage = chunk.get("usage") or {}
        choice = (chunk.get("choices") or [{}])[0]
        part = choice.get("delta") or {}
        return Delta(
            text=part.get("content") or "",
            reasoning=part.get("reasoning_content") or "",
            finish_reason=choice.get("finish_reason"),
            prompt_tokens=usage.get("prompt_tokens", 0),
            completion_tokens=usage.get("completion_tokens", 0),
            logprobs=tuple(
                token | {"top_logprobs": token["top_logprobs"][: sampling.top_logprobs]}
                for token in (choice.get("logprobs") or {}).get("content") or ()
            ),
        )

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
        ends, seen = [], bytearray()
        for token in answer["tokens"]:
            piece = token["piece"]
            seen += piece.encode() if isinstance(piece, str) else bytes(piece)
            ends.append(len(seen))
        # Bytes to characters: a character split over tokens ends with its last byte.
        starts = [n for n, byte in enumerate(seen) if byte & 0xC0 != 0x80]
        return _characters(ends, [*starts[1:], len(seen)])

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        await self.check_health()
        assert self._http is not None
        try:
            async with self._http.post(path, json=body) as response:
                answer = await response.json()
        except aiohttp.ClientError as error:
            raise EngineUnavailable(f"llama.cpp: {error}", model=self._name) from error
        if "error" in answer:
            raise self._error(answer["error"])
        return answer

    async def check_health(self) -> None:
        if self._server is None:
            raise EngineUnavailable("llama.cpp is not running", model=self._name)

    async def stop(self) -> None:
        self._stopping.set()
        http, pool, folder = self._http, self._pool, self._folder
        self._server = None
        self._http = None
        self._pool = None
        self._folder = None
        if http is not None:
            await http.close()
        if pool is not None:  # the last call to end drops the server, which unloads the model
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)
        if folder is not None:
            folder.remove()


def _request(messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
    request: dict[str, Any] = {
        "messages": list(messages),
        "stream": True,  # a call that is not streamed cannot be cancelled
        "stream_options": {"include_usage": True},
        "return_progress": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": 0,  # with llama.cpp's own defaults of top_k and min_p the sampling would differ
        "min_p": 0,  # from what the recipe says
        "max_tokens": sampling.max_tokens,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
    }
    if sampling.stop:
        request["stop"] = list(sampling.stop)
    if sampling.seed is not None:
        request["seed"] = sampling.seed % (2**32 - 1)  # llama.cpp takes 2**32 - 1 for a random seed
    if sampling.top_logprobs is not None:
        # With 0, llama.cpp would also leave out the log-probability of the written token.
        request |= {"logprobs": True, "top_logprobs": max(1, sampling.top_logprobs)}
    return request


def _characters(byte_ends: list[int], character_ends: list[int]) -> list[int]:
    """Count the characters that end at or before each byte position. Both lists are sorted."""
    counts, done = [], 0
    for end in byte_ends:
        while done < len(character_ends) and character_ends[done] <= end:
            done += 1
        counts.append(done)
    return counts
