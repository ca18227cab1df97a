"""llama.cpp inside this process, through xllamacpp: GGUF weights, continuous batching.

Facts that shape this engine, tested on xllamacpp 2026.10.11549:
- A call blocks its thread. So each call runs in a thread of our own pool, and its chunks come back
  through the event loop. A call is cancelled when its callback returns True.
- The callback runs only when a chunk arrives. The option `return_progress` makes a chunk arrive after
  each prefill step of `n_batch` tokens, so a call can be cancelled during its prefill too.
- Each Server opens an HTTP port without authentication, and this cannot be switched off. So we have it
  listen on a Unix socket in a folder that only this user can enter, and protect the socket with a
  random key. We send tokenizing requests to the socket, because the library has no function for them.
- The library can parse answers itself, but fails a call whose answer does not match the format that it
  expects. `force_pure_content_parser` turns that off. `actors/text/thinking.py` separates reasoning.
"""

import asyncio
import json
import secrets
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from actors.engine import NONE, Delta, Message, Share
from actors.engines.gguf_vocabulary import Vocabulary, read_vocabulary
from actors.engines.llamacpp_answer import Answer
from actors.engines.llamacpp_call import NativeCall, NativeFailure
from actors.engines.llamacpp_params import load_server, native_params, require_chat_model
from actors.engines.llamacpp_sampling import sampling_fields
from actors.private_folder import PrivateFolder
from actors.text.control_tokens import Defuser
from actors.text.thinking import Splitter, without_leading_thought
from actors.text.thinking_marks import Family, families_of
from actors.text.turns import TakenForm, is_of_template, refusal
from actors.weights.files import fetch
from configs.errors import BadRequest, ContextTooLong, EngineError, EngineUnavailable
from configs.schema import LlamaCppModel, Sampling

MOST_OPENED = 256
"""Most different arguments of a chat template of which the engine remembers how a prompt ends."""


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
        self._vocabulary: Vocabulary | None = None
        self._families: tuple[Family, ...] = ()
        self._defuser = Defuser(())
        self._taken = TakenForm()
        self._opened: dict[str, bool] = {}
        """Whether a prompt ends within a thought, by the arguments of the chat template."""

    async def start(self) -> None:
        path = await asyncio.to_thread(fetch, self._name, self._model.weights)
        draft = await asyncio.to_thread(self._fetch_draft)
        self._folder = PrivateFolder()
        try:
            socket, key = self._folder.path / "llama.sock", secrets.token_urlsafe(32)
            params = self._params(path, draft, socket, key)
            self._server, errors = await asyncio.to_thread(self._load, path, params)
            self._http = aiohttp.ClientSession(
                "http://llama",
                connector=aiohttp.UnixConnector(str(socket)),
                headers={"Authorization": f"Bearer {key}"},
            )
            await self._check_slots(errors)
        except BaseException:
            await self.stop()
            raise
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(
            self._model.concurrency, thread_name_prefix=f"llama-{self._name}"
        )

    def _fetch_draft(self) -> Path | None:
        model = self._model.draft_model
        return None if model is None else fetch(f"{self._name} (draft)", model.weights)

    def _load(self, path: Path, params: Any) -> tuple[Any, list[str]]:
        """Load the model; return the server, and the errors that it wrote all the same."""
        try:
            require_chat_model(path)
            if self._vocabulary is None:
                self._vocabulary = read_vocabulary(path)
        except ValueError as error:
            raise self._cannot_load(path, error) from error
        self._families = families_of(self._model.reasoning_format, self._vocabulary.template)
        self._defuser = Defuser(self._vocabulary.control)
        params.special = self._writes_control
        assert self._folder is not None
        try:
            return load_server(params, self._folder.path / "load.log")
        except RuntimeError as error:
            raise self._cannot_load(path, error) from error

    def _cannot_load(self, path: Path, cause: object) -> EngineUnavailable:
        return EngineUnavailable(f"llama.cpp cannot load {path}: {cause}", model=self._name)

    async def _check_slots(self, errors: Sequence[str]) -> None:
        """Wait until llama.cpp's loop runs: a server that is stopped before that never ends.

        Raises:
            EngineUnavailable: llama.cpp serves the model without the speculation of the recipe.
        """
        slots = await self._post("/slots", None)
        if self._model.speculation is not None and not all(slot["speculative"] for slot in slots):
            cause = next(iter(errors), "llama.cpp does not say why")
            message = f"llama.cpp cannot speculate with these settings: {cause}"
            raise EngineUnavailable(message, model=self._name)

    def _params(self, path: Path, draft: Path | None, socket: Path, key: str) -> Any:
        try:
            params = native_params(self._model, self._share, path, draft)
        except ValueError as error:
            raise EngineUnavailable(str(error), model=self._name) from error
        params.hostnames = [str(socket)]
        params.api_keys = [key]
        return params

    @property
    def _writes_control(self) -> bool:
        """Whether llama.cpp has to write control tokens out, because they mark reasoning."""
        assert self._vocabulary is not None
        marks = [mark for family in self._families for mark in family.marks]
        return any(token in mark for token in self._vocabulary.hidden for mark in marks)

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncGenerator[Delta]:
        await self.check_health()
        # llama.cpp tells no log-probabilities of guessed tokens. The first token is never guessed.
        is_guessed = self._model.speculation is not None and sampling.most_tokens > 1
        if is_guessed and sampling.top_logprobs is not None:
            message = "llama.cpp tells no logprobs while it speculates (speculation in the recipe)"
            raise BadRequest(message, model=self._name, param="logprobs")
        harmless = self._harmless(messages)
        attempt = partial(self._attempt, sampling=sampling, streamed=streamed)
        async with aclosing(self._taken.stream(harmless, attempt)) as deltas:
            async for delta in deltas:
                yield delta

    async def _attempt(
        self, messages: Sequence[Message], sampling: Sampling, streamed: bool
    ) -> AsyncGenerator[Delta]:
        """The answer to a conversation in a form that the chat template may refuse."""
        assert self._pool is not None
        stopping, server = self._stopping, self._server
        template = self._model.template | sampling.template_arguments
        body = _request(sampling, template, self._families[0] if self._families else None)
        if _is_begun(messages):  # llama.cpp's own way to continue a message leaves that message out
            body |= {"prompt": await self._render(messages, template)}
            if sampling.top_logprobs is not None:
                body["logprobs"] = body["top_logprobs"]  # a number, where a prompt is sent
            handle, splitter = server.handle_completions, Splitter(())
        else:
            body["messages"] = list(messages)
            handle, splitter = server.handle_chat_completions, await self._splitter(template)
        answer = Answer(splitter, sampling)
        call = NativeCall(handle, json.dumps(body), stopping, streamed)
        del handle, server  # the last call to end drops the server, which unloads the model
        try:
            async with aclosing(call.run(self._pool)) as crossings:
                async for chunks in crossings:
                    self._raise_errors(chunks)
                    if (together := answer.add(chunks)) != Delta():
                        yield together
                    if answer.has_ended:
                        return
            if (rest := answer.end()) != Delta():
                yield rest
        except NativeFailure as error:
            raise self._error({"message": f"llama.cpp: {error}"}) from error
        if stopping.is_set():
            raise EngineUnavailable("llama.cpp was stopped", model=self._name)

    def _raise_errors(self, chunks: Sequence[dict[str, Any]]) -> None:
        for chunk in chunks:
            if "error" in chunk:
                raise self._error(chunk["error"])

    def _error(self, error: dict[str, Any]) -> EngineError | BadRequest:
        message = str(error.get("message", error))
        if is_of_template(message):
            return refusal(message, self._name)
        if error.get("type") == "exceed_context_size_error":
            return ContextTooLong(message, model=self._name, param="messages")
        if error.get("code") == 400:
            return BadRequest(message, model=self._name)
        return EngineError(message, model=self._name)

    def _harmless(self, messages: Sequence[Message]) -> list[Message]:
        """The messages as the model may read them: no control tokens, no thoughts of old answers."""
        return self._defuser.harmless(without_leading_thought(messages, self._families))

    async def _splitter(self, template: Mapping[str, Any]) -> Splitter:
        """A Splitter for one answer to a prompt with these arguments of the chat template."""
        if not self._families:
            return Splitter(())
        key = json.dumps(template, sort_keys=True)
        if key not in self._opened:
            if len(self._opened) >= MOST_OPENED:
                self._opened.clear()
            prompt = await self._render([Message(role="user", content="hi")], template)
            self._opened[key] = self._families[0].opens(prompt)
        assert self._vocabulary is not None
        hidden = self._vocabulary.hidden if self._writes_control else ()
        return Splitter(self._families, is_open=self._opened[key], hidden=hidden)

    async def _render(self, messages: Sequence[Message], template: Mapping[str, Any]) -> str:
        """The prompt of a conversation. The answer continues a last message of the assistant."""
        is_begun = _is_begun(messages)
        turns = list(messages[:-1] if is_begun else messages)
        body = {"messages": turns, "chat_template_kwargs": dict(template)}
        prompt = str((await self._post("/apply-template", body))["prompt"])
        if not is_begun:
            return prompt
        is_open = any(family.opens(prompt) for family in self._families[:1])
        return prompt + (self._families[0].closing if is_open else "") + messages[-1]["content"]

    async def token_ends(
        self, prompt: str | Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> list[int]:
        if isinstance(prompt, str):
            return await self._token_ends(self._defuser.defuse(prompt))
        arguments = self._model.template | dict(template)
        text = await self._taken.run(
            self._harmless(prompt), lambda taken: self._render(taken, arguments)
        )
        return await self._token_ends(text, parse_special=True, add_special=True)

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

    async def _post(self, path: str, body: dict[str, Any] | None) -> Any:
        """What the server answers; without a body, the request is a GET."""
        await self.check_health()
        assert self._http is not None
        try:
            method = "GET" if body is None else "POST"
            async with self._http.request(method, path, json=body) as response:
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


def _is_begun(messages: Sequence[Message]) -> bool:
    """Whether the answer continues the conversation's last message."""
    return len(messages) > 1 and messages[-1]["role"] == "assistant"


def _request(
    sampling: Sampling,
    template: Mapping[str, Any],
    family: Family | None,
) -> dict[str, Any]:
    request: dict[str, Any] = {
        "chat_template_kwargs": dict(template),
        "stream": True,  # a call that is not streamed cannot be cancelled
        "stream_options": {"include_usage": True},
        "return_progress": True,
    } | sampling_fields(sampling)
    if sampling.thinking_tokens is not None:
        request["timings_per_token"] = True  # says how many tokens each chunk ends
        if family is not None:
            request |= {
                # With 0, a line break behind the mark in the prompt would count as the end.
                "reasoning_budget_tokens": max(1, sampling.thinking_tokens),
                "reasoning_budget_start_tag": family.begins[0],
                "reasoning_budget_end_tags": list(dict.fromkeys([family.closing, family.end])),
                "reasoning_budget_message": "",  # without this field nothing is forced
            }
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
