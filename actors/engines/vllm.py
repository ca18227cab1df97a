"""vLLM inside the replica: safetensors on a GPU, or on a CPU with a CPU build of vLLM.

Facts that shape this engine, read in vLLM 0.26 and 0.32 and tested on 0.32 (docs/vllm.md):
- AsyncLLM runs the model in a child process. Nothing revives a child that died: every call and
  `check_health` then raise EngineUnavailable, and the replica has to be replaced.
- vLLM measures the whole card when it starts, sleeps or wakes. So these steps must not overlap with
  those of other engines on the card. The card's keeper prevents that; this file knows nothing of other
  engines.
- By default `sleep` aborts the calls in flight. Sleep level 2 is unsafe for quantized weights. A wake
  that failed leaves the memory half mapped.
"""

import asyncio
import logging
import os
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from actors.engine import NONE, PIECE_S, Delta, FinishReason, Message, Share, merge
from actors.engines.vllm_adapters import AdapterWriter, find_adapters, lora_arguments
from actors.engines.vllm_arguments import (
    BEFORE_IMPORT,
    REPLICA,
    engine_arguments,
    environment,
    sampling_arguments,
)
from actors.engines.vllm_chat import FORM, Answer, Chat
from actors.engines.vllm_processes import Processes, child_processes, end_processes
from actors.engines.vllm_text import logprob_objects, token_ends
from actors.text.turns import TakenForm, refusal
from actors.weights.lookup import engine_folder
from cluster.cards.card import Kind
from cluster.plan.checkpoint import from_folder
from cluster.plan.footprint import footprint
from configs.errors import (
    BadRequest,
    ContextTooLong,
    EngineError,
    EngineUnavailable,
    UnknownModel,
)
from configs.schema import Sampling, VllmModel

os.environ.update(BEFORE_IMPORT)

from vllm import AsyncEngineArgs, SamplingParams
from vllm.config.reasoning import ReasoningConfig
from vllm.exceptions import VLLMValidationError
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.renderers import ChatParams
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

PROBE: list[Message] = [{"role": "user", "content": "Count from one to twenty."}]
"""The prompt whose greedy answer is compared before and after the first sleep."""
PROBE_TOKENS = 8
"""How many tokens of the answer to PROBE are compared."""

LOOK_S = 0.2
"""Seconds between two looks for processes of a start that was cancelled."""

logger = logging.getLogger(__name__)


def create(name: str, model: VllmModel, share: Share) -> "VllmEngine":
    """Create the engine without starting it.

    If `share` gives no size for the KV cache, the engine takes the size that a plan would give it.
    """
    return VllmEngine(name, model, share)


class VllmEngine:
    """One model. `sleep` moves its weights to host RAM and drops its KV cache.

    On a CPU, `sleep` frees no memory, but calls that arrive before `wake` wait all the same.
    """

    def __init__(self, name: str, model: VllmModel, share: Share) -> None:
        self._name = name
        self._model = model
        self._share = share
        self._llm: Any = None
        self._loading: asyncio.Future[AsyncLLM] | None = None
        self._others: Processes | None = None
        self._chat: Any = None
        self._calls: set[str] = set()
        self._adapters: dict[str, LoRARequest] = {}
        self._failure: str | None = "vLLM is not running"
        self._taken = TakenForm()
        self._probe: list[int] | None = None

    async def start(self) -> None:
        await self.stop()
        # Nothing is fetched here, under the card's lock: the replica has fetched the folder before.
        folder = await asyncio.to_thread(engine_folder, self._model)
        if folder is None:
            raise EngineUnavailable("the folder of its weights is not here", model=self._name)
        self._others = child_processes()
        try:
            self._loading = asyncio.ensure_future(asyncio.to_thread(self._load, folder))
            # A thread cannot be cancelled. If this start is, `stop` waits for the end of the thread.
            self._llm = await asyncio.shield(self._loading)
            self._failure = None
            self._chat.note_tokenizer(self._llm.get_tokenizer())
            for adapter in self._adapters.values():
                await self._llm.add_lora(adapter)  # an adapter that cannot be loaded shows now
            self._probe = await self._answer_probe()  # the first call also triggers late compilation
        except Exception as error:  # any error at start leaves no usable engine
            await self.stop()
            message = f"vLLM cannot run {folder.name}: {error}; its log has the cause"
            raise EngineUnavailable(message, model=self._name) from error

    def _load(self, folder: Path) -> AsyncLLM:
        kind: Kind = "cpu" if current_platform.is_cpu() else "gpu"
        share = self._share
        if not share.kv_cache_memory_bytes:
            kv = footprint(self._model, from_folder(folder), kind, share.gpus).kv
            share = replace(share, kv_cache_memory_bytes=kv)
        os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)  # this variable would override our size
        os.environ.update(environment(self._model, share, kind))
        os.environ[REPLICA] = str(os.getpid())
        arguments = engine_arguments(folder, self._model, share, kind, self._draft_folder())
        adapters, lora = find_adapters(self._name, self._model)
        arguments |= lora_arguments(lora, kind)
        self._adapters = {
            each.name: LoRARequest(each.name, each.number, str(each.folder)) for each in adapters
        }
        self._chat = Chat(self._model, folder)
        if (reasoning := self._chat.reasoning_config) is not None:
            arguments["reasoning_config"] = ReasoningConfig(**reasoning)
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))

    def _draft_folder(self) -> Path | None:
        """The checkpoint that guesses tokens; None if there is none."""
        draft = self._model.draft_model
        if draft is None:
            return None
        if (folder := engine_folder(draft)) is None:
            raise EngineUnavailable("the folder of its draft is not here", model=self._name)
        return folder

    def with_adapter(self, name: str) -> AdapterWriter:
        """See `HasAdapters`."""
        if name not in self._model.adapters:
            raise UnknownModel(f"model {self._name!r} has no adapter {name!r}", model=self._name)
        return AdapterWriter(self, name, self._model.adapters[name].template)

    def stream(
        self, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncGenerator[Delta, None]:
        return self.answer(messages, sampling, streamed, None)

    async def answer(
        self, messages: Sequence[Message], sampling: Sampling, streamed: bool, adapter: str | None
    ) -> AsyncGenerator[Delta, None]:
        """See `Engine.stream`.

        Args:
            adapter: the adapter that answers; None for the model itself.
        """
        llm = self._alive()
        prompt = await self._render(messages, sampling.template_arguments)
        arguments = sampling_arguments(sampling) | self._chat.sampling_arguments(sampling)
        answer = self._chat.answer(llm.get_tokenizer(), prompt, sampling)
        held: list[Delta] = []
        now = asyncio.get_running_loop().time
        due_at = now()
        prompt_tokens = 0
        async with aclosing(self._calls_for(answer, prompt, arguments, adapter)) as outputs:
            async for output in outputs:
                part = output.outputs[0]
                prompt_tokens = prompt_tokens or len(output.prompt_token_ids)
                added = answer.add(part.text, len(part.token_ids), self._finish(part.finish_reason))
                has_ended = added.finish_reason is not None
                delta = msgspec.structs.replace(
                    added,
                    prompt_tokens=prompt_tokens if has_ended else 0,
                    logprobs=logprob_objects(part.logprobs, _written(part), sampling.top_logprobs),
                )
                if delta != Delta():
                    held.append(delta)
                # Not RequestOutputKind.FINAL_ONLY: its callers would have no text by their deadlines.
                if held and (streamed or has_ended or now() >= due_at):
                    yield merge(held)
                    held, due_at = [], now() + PIECE_S
                if has_ended:
                    return

    async def _calls_for(
        self, answer: Answer, prompt: Any, arguments: dict[str, Any], adapter: str | None
    ) -> AsyncGenerator[Any, None]:
        """Yield vLLM's outputs of one answer, which may take a second call (`AnswerReader`)."""
        asked = answer.first_call(arguments)
        for _ in range(2):
            async with aclosing(
                self._outputs(self._alive(), prompt, _params(asked), adapter)
            ) as outputs:
                async for output in outputs:
                    yield output
                    if answer.is_unanswered:
                        break
            if not answer.is_unanswered:
                return
            tokens, asked = answer.second_call(self._alive().get_tokenizer(), arguments)
            prompt = {**prompt, "prompt_token_ids": tokens}

    async def _outputs(
        self, llm: Any, prompt: Any, params: SamplingParams, adapter: str | None = None
    ) -> AsyncGenerator[Any, None]:
        """Yield vLLM's outputs of one call and raise our errors for vLLM's. Closing aborts the call."""
        call = uuid.uuid4().hex
        self._calls.add(call)
        outputs = llm.generate(
            prompt, params, call, lora_request=self._adapters[adapter] if adapter else None
        )
        try:
            async for output in outputs:
                yield output
        except EngineDeadError as error:
            raise self._unavailable("vLLM's engine process died") from error
        except (VLLMValidationError, ValueError) as error:
            raise self._refusal(error) from error
        except Exception as error:  # vLLM has its own errors; only this call has failed
            raise EngineError(f"vLLM: {error}", model=self._name) from error
        finally:
            self._calls.discard(call)
            await outputs.aclose()

    async def _render(self, messages: Sequence[Message], template: Mapping[str, Any] = NONE) -> Any:
        """Apply the chat template and tokenize; return the prompt as the model reads it."""
        llm = self._alive()

        async def render(taken: Sequence[Message]) -> Any:
            params = ChatParams(chat_template_kwargs=self._chat.arguments(template, taken))
            try:
                _, (prompt,) = await llm.renderer.render_chat_async([list(taken)], params)
            except VLLMValidationError as error:
                raise self._refusal(error) from error
            except ValueError as error:  # vLLM makes one of whatever the template raises
                raise refusal(str(error), self._name) from error
            return prompt

        return await self._taken.run(self._chat.harmless(messages), render)

    def _refusal(self, error: Exception) -> BadRequest:
        if getattr(error, "parameter", None) in ("input_tokens", "input_text"):
            return ContextTooLong(str(error.args[0]), model=self._name, param="messages")
        return BadRequest(f"vLLM: {error}", model=self._name, param="messages")

    def _finish(self, reason: str | None) -> FinishReason | None:
        if reason == "abort":
            raise EngineUnavailable("vLLM was stopped", model=self._name)
        if reason == "error":
            raise EngineError("vLLM failed on this call; its log has the cause", model=self._name)
        return None if reason is None else "length" if reason == "length" else "stop"

    async def token_ends(
        self, prompt: str | Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> list[int]:
        tokenizer = self._alive().get_tokenizer()
        if isinstance(prompt, str):
            return token_ends(tokenizer, self._chat.defuse(prompt))
        # `_render` refuses prompts that are too long, but this method has to count them.

        async def render(taken: Sequence[Message]) -> Any:
            arguments = self._chat.arguments(template, taken)
            try:
                return tokenizer.apply_chat_template(list(taken), tokenize=False, **arguments)
            except Exception as error:  # the template raises what it likes
                raise refusal(str(error), self._name) from error

        return token_ends(tokenizer, await self._taken.run(self._chat.harmless(prompt), render))

    async def check_health(self) -> None:
        try:
            await self._alive().check_health()
        except EngineDeadError as error:
            raise self._unavailable("vLLM's engine process died") from error

    async def sleep(self) -> None:
        """Wait for the calls in flight, then free the card's memory except for a small rest.

        Raises:
            EngineUnavailable: vLLM's engine process died.
        """
        try:
            await self._alive().sleep(level=1, mode="wait")
        except EngineDeadError as error:
            raise self._unavailable("vLLM's engine process died falling asleep") from error

    async def wake(self) -> None:
        """Move the weights back to the card. The first wake checks that the model answers as before.

        Raises:
            EngineUnavailable: the engine is unusable and has to be started again.
        """
        llm = self._alive()
        try:
            await llm.wake_up()
        except Exception as error:  # out of memory or dead; half mapped memory cannot be repaired
            raise self._unavailable(f"vLLM did not wake up: {error}") from error
        before, self._probe = self._probe, None
        if before is not None and (after := await self._answer_probe()) != before:
            raise self._unavailable(f"after sleep it answers differently: {after}, not {before}")

    async def check_asleep(self) -> None:
        """See `Sleeper`: vLLM knows whether its process has died, without asking the process."""
        await self.check_health()

    async def stop(self) -> None:
        """See `Engine`. When this returns, vLLM's processes are gone, and their memory is free."""
        await self._end_loading()
        llm, self._llm = self._llm, None
        self._failure = "vLLM is stopped"
        processes = self._processes()
        if llm is not None:
            with suppress(EngineDeadError):
                await llm.abort(list(self._calls))
            if llm.output_handler is not None:  # else the handler reports our stop as a failure
                llm.output_handler.cancel()
            await asyncio.to_thread(llm.shutdown)
        await asyncio.to_thread(end_processes, processes)
        self._others = None

    async def _end_loading(self) -> None:
        """End a start that was cancelled: a second engine must not start beside the first."""
        while self._loading is not None and not self._loading.done():
            # Without its processes the start fails, and its thread ends.
            await asyncio.to_thread(end_processes, self._processes(), 0)
            await asyncio.wait([self._loading], timeout=LOOK_S)
        loading, self._loading = self._loading, None
        if loading is not None and not loading.cancelled() and loading.exception() is None:
            self._llm = loading.result()

    def _processes(self) -> Processes:
        """vLLM's processes: those below this one that were not there before vLLM was started."""
        return set() if self._others is None else child_processes() - self._others

    def _alive(self) -> Any:
        if self._failure is not None:
            raise EngineUnavailable(self._failure, model=self._name)
        return self._llm

    def _unavailable(self, failure: str) -> EngineUnavailable:
        """Mark the engine as unusable and return the error to raise; `stop` still has to be called."""
        logger.error("model %s: %s", self._name, failure)
        self._failure = failure
        return EngineUnavailable(failure, model=self._name)

    async def _answer_probe(self) -> list[int]:
        """Token ids of the greedy answer to PROBE, computed without the prefix cache."""
        params = SamplingParams(
            temperature=0,
            max_tokens=PROBE_TOKENS,
            ignore_eos=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_reading_prefix_cache=True,
        )
        prompt = await self._render(PROBE)
        async with aclosing(self._outputs(self._alive(), prompt, params)) as outputs:
            return [token async for output in outputs for token in output.outputs[0].token_ids]


def _params(arguments: dict[str, Any]) -> SamplingParams:
    """vLLM's parameters of one streamed call."""
    form = arguments.get(FORM)
    if form is not None:
        arguments = arguments | {FORM: StructuredOutputsParams(**form)}
    return SamplingParams(**arguments, output_kind=RequestOutputKind.DELTA, skip_clone=True)


def _written(part: Any) -> list[int]:
    """The token ids of an output that are text: all but the token that ends the model's message."""
    ended = part.finish_reason == "stop" and not isinstance(part.stop_reason, str)
    return list(part.token_ids[:-1] if ended else part.token_ids)
