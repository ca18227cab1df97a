"""llama.cpp inside this process, through xllamacpp: GGUF weights, continuous batching.

Facts that shape this engine, tested on xllamacpp 2026.10.11549:
- A call blocks its thread. So each call runs in a thread of our own pool, and its chunks come back
  through the event loop. A call is cancelled when its callback returns True.
- The callback runs only when a chunk arrives. The option `return_progress` makes a chunk arrive after
  each prefill step of `n_batch` tokens, so a call can be cancelled during its prefill too.
- The library can parse answers itself, but fails a call whose answer does not match the format that it
  expects. `force_pure_content_parser` turns that off. `actors/text/answer_reader.py` separates
  reasoning.
"""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

from actors.engine import NONE, Delta, Message, Share
from actors.engines.gguf_vocabulary import read_vocabulary
from actors.engines.llamacpp_answer import Answer
from actors.engines.llamacpp_call import NativeCall, NativeFailure
from actors.engines.llamacpp_params import (
    keeps_prompts,
    load_server,
    native_params,
    require_chat_model,
)
from actors.engines.llamacpp_request import (
    chat_request,
    continuing_request,
    is_begun,
    second_request,
)
from actors.engines.llamacpp_socket import ServerSocket, server_error
from actors.private_folder import PrivateFolder
from actors.text.answer_reader import AnswerReader
from actors.text.chat_marks import ChatMarks
from actors.text.thinking_marks import families_of
from actors.text.turns import TakenForm
from actors.weights.files import fetch
from configs.errors import BadRequest, EngineUnavailable
from configs.schema import LlamaCppModel, Sampling

MOST_ENDS = 256
"""Most different arguments of a chat template of which the engine remembers how a prompt ends."""
READ = Sampling(temperature=0, max_tokens=1)
"""The sampling of a warm-up, which only reads a prompt. llama.cpp writes one token at least."""
END_CHARACTERS = 256
"""How many of a prompt's last characters tell whether the chat template begins a thought."""


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
        self._socket: ServerSocket | None = None
        self._folder: PrivateFolder | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._stopping = threading.Event()
        self._marks: ChatMarks | None = None
        self._taken = TakenForm()
        self._keeps_prompts = False
        self._ends: dict[str, str] = {}
        """How a prompt ends, by the arguments of the chat template."""

    async def start(self) -> None:
        path = await asyncio.to_thread(fetch, self._name, self._model.weights)
        draft = await asyncio.to_thread(self._fetch_draft)
        self._folder = PrivateFolder()
        try:
            self._socket = ServerSocket(self._folder.path, self._name)
            params = self._params(path, draft, self._socket)
            self._server, errors = await asyncio.to_thread(self._load, path, params)
            self._socket.open()
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
            self._keeps_prompts = keeps_prompts(path)
            if self._marks is None:
                vocabulary = read_vocabulary(path)
                families = families_of(self._model.reasoning_format, vocabulary.template)
                self._marks = ChatMarks(families, vocabulary.control, vocabulary.hidden)
        except ValueError as error:
            raise self._cannot_load(path, error) from error
        params.special = self._marks.writes_control
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
        slots = await self._alive().ask("/slots")
        if self._model.speculation is not None and not all(slot["speculative"] for slot in slots):
            cause = next(iter(errors), "llama.cpp does not say why")
            message = f"llama.cpp cannot speculate with these settings: {cause}"
            raise EngineUnavailable(message, model=self._name)

    def _params(self, path: Path, draft: Path | None, socket: ServerSocket) -> Any:
        try:
            params = native_params(self._model, self._share, path, draft)
        except ValueError as error:
            raise EngineUnavailable(str(error), model=self._name) from error
        params.hostnames = [str(socket.path)]
        params.api_keys = [socket.key]
        return params

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncGenerator[Delta]:
        self._alive()
        # llama.cpp tells no log-probabilities of guessed tokens. The first token is never guessed.
        is_guessed = self._model.speculation is not None and sampling.most_tokens > 1
        if is_guessed and sampling.top_logprobs is not None:
            message = "llama.cpp tells no logprobs while it speculates (speculation in the recipe)"
            raise BadRequest(message, model=self._name, param="logprobs")
        assert self._marks is not None
        attempt = partial(self._attempt, sampling=sampling, streamed=streamed)
        harmless = self._marks.harmless(messages)
        async with aclosing(self._taken.stream(harmless, attempt)) as deltas:
            async for delta in deltas:
                yield delta

    async def _attempt(
        self, messages: Sequence[Message], sampling: Sampling, streamed: bool
    ) -> AsyncGenerator[Delta]:
        """The answer to a conversation in a form that the chat template may refuse."""
        assert self._marks is not None
        stopping = self._stopping
        template, family = self._model.template | sampling.template_arguments, self._marks.family
        if is_begun(messages):
            reader = AnswerReader((), sampling)
            request = continuing_request(await self._render(messages, template), sampling)
        else:
            reader = self._marks.reader(sampling, await self._prompt_end(template))
            request = chat_request(messages, sampling, template, family, reader)
        answer = Answer(reader, sampling)
        async with aclosing(self._call(request, answer, stopping, streamed)) as deltas:
            async for delta in deltas:
                yield delta
        if not reader.is_unanswered or family is None:
            return
        prompt, closed = await self._render(messages, template), reader.before_answer
        answer.begin_second(await self._alive().mark_tokens(reader.closing) if closed else 0)
        request = second_request(prompt + closed, sampling, family, reader, self._marks.control)
        async with aclosing(self._call(request, answer, stopping, streamed)) as deltas:
            async for delta in deltas:
                yield delta

    async def _call(
        self, request: dict[str, Any], answer: Answer, stopping: threading.Event, streamed: bool
    ) -> AsyncGenerator[Delta]:
        """Run one call and yield what it adds to the answer."""
        self._alive()
        assert self._pool is not None
        server = self._server
        handle = server.handle_completions if "prompt" in request else server.handle_chat_completions
        call = NativeCall(handle, json.dumps(request), stopping, streamed)
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
            raise server_error({"message": f"llama.cpp: {error}"}, self._name) from error
        if stopping.is_set():
            raise EngineUnavailable("llama.cpp was stopped", model=self._name)

    def _raise_errors(self, chunks: Sequence[dict[str, Any]]) -> None:
        for chunk in chunks:
            if "error" in chunk:
                raise server_error(chunk["error"], self._name)

    @property
    def can_warm(self) -> bool:
        return self._keeps_prompts

    async def warm(self, messages: Sequence[Message], template: Mapping[str, Any] = NONE) -> int:
        """See `Warmer`. llama.cpp gives a call the slot whose prompt has the longest common beginning
        with the call's prompt. If a warm-up is cancelled, its slot keeps what it has read."""
        self._alive()
        assert self._marks is not None
        arguments = self._model.template | dict(template)
        prompt = await self._taken.run(
            self._marks.harmless(messages), lambda taken: self._render(taken, arguments)
        )
        answer = Answer(AnswerReader((), READ), READ)
        call = self._call(continuing_request(prompt, READ), answer, self._stopping, streamed=False)
        async with aclosing(call) as deltas:
            parts = [delta async for delta in deltas]
        return sum(part.prompt_tokens - part.cached_tokens for part in parts)

    async def _prompt_end(self, template: Mapping[str, Any]) -> str:
        """The end of every prompt with these arguments of the chat template."""
        assert self._marks is not None
        if self._marks.family is None:
            return ""
        key = json.dumps(template, sort_keys=True)
        if key not in self._ends:
            if len(self._ends) >= MOST_ENDS:
                self._ends.clear()
            prompt = await self._render([Message(role="user", content="hi")], template)
            self._ends[key] = prompt[-END_CHARACTERS:]
        return self._ends[key]

    async def _render(self, messages: Sequence[Message], template: Mapping[str, Any]) -> str:
        """The prompt of a conversation. The answer continues a last message of the assistant."""
        assert self._marks is not None
        return await self._alive().prompt(messages, template, self._marks.family)

    async def token_ends(
        self, prompt: str | Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> list[int]:
        socket = self._alive()
        assert self._marks is not None
        if isinstance(prompt, str):
            return await socket.token_ends(self._marks.defuse(prompt))
        arguments = self._model.template | dict(template)
        text = await self._taken.run(
            self._marks.harmless(prompt), lambda taken: self._render(taken, arguments)
        )
        return await socket.token_ends(text, is_prompt=True)

    async def check_health(self) -> None:
        self._alive()

    def _alive(self) -> ServerSocket:
        if self._server is None or self._socket is None:
            raise EngineUnavailable("llama.cpp is not running", model=self._name)
        return self._socket

    async def stop(self) -> None:
        self._stopping.set()
        socket, pool, folder = self._socket, self._pool, self._folder
        self._server = None
        self._socket = None
        self._pool = None
        self._folder = None
        if socket is not None:
            await socket.close()
        if pool is not None:  # the last call to end drops the server, which unloads the model
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)
        if folder is not None:
            folder.remove()
