"""vLLM inside the replica: safetensors on a GPU, or on a CPU with a CPU build of vLLM.

Facts that shape this engine, read in vLLM 0.26 and 0.32 and tested on 0.32 (docs/vllm.md):
- vLLM measures the whole card when it starts, sleeps or wakes. So these steps must not overlap with
  those of other engines on the card. The card's keeper prevents that; this file knows nothing of other
  engines.
- By default `sleep` aborts the calls in flight. Sleep level 2 is unsafe for quantized weights. A wake
  that failed leaves the memory half mapped.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from actors.engine import NONE, PIECE_S, Delta, Message, Share, merge
from actors.engines.vllm_adapters import AdapterWriter
from actors.engines.vllm_calls import WARM_UP, Calls, written_tokens
from actors.engines.vllm_library import EngineDeadError, RequestOutputKind
from actors.engines.vllm_pieces import Pieces
from actors.engines.vllm_runner import Runner
from actors.engines.vllm_text import logprob_objects
from actors.weights.lookup import engine_folder
from configs.errors import EngineUnavailable, UnknownModel
from configs.schema import Sampling, VllmModel

PROBE: list[Message] = [{"role": "user", "content": "Count from one to twenty."}]
"""The prompt whose greedy answer is compared before and after the first sleep."""
PROBE_TOKENS = 8
"""How many tokens of the answer to PROBE are compared."""


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
        self._runner = Runner(name, model, share)
        self._calls = Calls(name, self._runner)
        self._pieces = Pieces()
        self._probe: list[int] | None = None

    async def start(self) -> None:
        await self.stop()
        self._pieces.forget()
        # Nothing is fetched here, under the card's lock: the replica has fetched the folder before.
        folder = await asyncio.to_thread(engine_folder, self._model)
        if folder is None:
            raise EngineUnavailable("the folder of its weights is not here", model=self._name)
        try:
            await self._runner.start(folder)
            self._probe = await self._answer_probe()  # the first call also triggers late compilation
        except Exception as error:  # any error at start leaves no usable engine
            await self.stop()
            message = f"vLLM cannot run {folder.name}: {error}; its log has the cause"
            raise EngineUnavailable(message, model=self._name) from error

    async def stop(self) -> None:
        """See `Engine`. When this returns, vLLM's processes are gone, and their memory is free."""
        await self._runner.stop(self._calls.in_flight)

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
        llm, calls = self._runner.alive(), self._calls
        prompt = await calls.render(messages, sampling.template_arguments)
        answer = self._runner.chat.answer(llm.get_tokenizer(), prompt, sampling)
        held: list[Delta] = []
        now = asyncio.get_running_loop().time
        due_at = now()
        prompt_tokens = cached_tokens = 0
        async with aclosing(
            calls.of_answer(answer, prompt, calls.arguments(sampling), adapter)
        ) as outputs:
            async for output in outputs:
                part = output.outputs[0]
                if not prompt_tokens:  # a second call reads the first one's prompt again
                    prompt_tokens = len(output.prompt_token_ids)
                    cached_tokens = output.num_cached_tokens or 0
                added = answer.add(part.text, len(part.token_ids), calls.finish(part.finish_reason))
                has_ended = added.finish_reason is not None
                delta = msgspec.structs.replace(
                    added,
                    prompt_tokens=prompt_tokens if has_ended else 0,
                    cached_tokens=cached_tokens if has_ended else 0,
                    logprobs=logprob_objects(
                        part.logprobs, written_tokens(part), sampling.top_logprobs
                    ),
                )
                if delta != Delta():
                    held.append(delta)
                # Not RequestOutputKind.FINAL_ONLY: its callers would have no text by their deadlines.
                if held and (streamed or has_ended or now() >= due_at):
                    yield merge(held)
                    held, due_at = [], now() + PIECE_S
                if has_ended:
                    return

    @property
    def can_warm(self) -> bool:
        return self._runner.keeps_prompts

    async def warm(self, messages: Sequence[Message], template: Mapping[str, Any] = NONE) -> int:
        return await self.read(messages, template, None)

    async def read(
        self, messages: Sequence[Message], template: Mapping[str, Any], adapter: str | None
    ) -> int:
        """See `Warmer.warm`. Where a step of vLLM takes a whole prompt, the prompt is read in pieces
        (`vllm_pieces.py`), and a cancellation ends the reading behind the current piece.

        Args:
            adapter: the adapter that will answer; None for the model itself.
        """
        prompt = await self._calls.render(messages, template)
        config = self._runner.alive().vllm_config
        if config.scheduler_config.enable_chunked_prefill:
            return await self._read_prompt(prompt, adapter)
        read = 0
        tokens = prompt["prompt_token_ids"]
        for piece in self._pieces.of(tokens, config.cache_config.block_size, adapter):
            read += await self._read_prompt({**prompt, "prompt_token_ids": piece}, adapter)
        return read

    async def _read_prompt(self, prompt: Any, adapter: str | None) -> int:
        """Have vLLM read a prompt, and return how many of its tokens were not in the cache.

        The call has no seed: vLLM on a CPU dies if a call has a seed and its prompt takes several steps
        (vllm_arguments.py).
        """
        only_read = {"temperature": 0, "max_tokens": 1, "output_kind": RequestOutputKind.FINAL_ONLY}
        read = 0
        async with aclosing(self._calls.outputs(prompt, only_read, adapter, WARM_UP)) as outputs:
            async for output in outputs:
                self._calls.finish(output.outputs[0].finish_reason)
                read = len(output.prompt_token_ids) - (output.num_cached_tokens or 0)
        return read

    async def token_ends(
        self, prompt: str | Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> list[int]:
        return await self._calls.token_ends(prompt, template)

    async def check_health(self) -> None:
        await self._runner.check_health()

    async def sleep(self) -> None:
        """Wait for the calls in flight, then free the card's memory except for a small rest.

        Raises:
            EngineUnavailable: vLLM's engine process died.
        """
        self._pieces.forget()
        try:
            await self._runner.alive().sleep(level=1, mode="wait")
        except EngineDeadError as error:
            raise self._runner.broken("vLLM's engine process died falling asleep") from error

    async def wake(self) -> None:
        """Move the weights back to the card. The first wake checks that the model answers as before.

        Raises:
            EngineUnavailable: the engine is unusable and has to be started again.
        """
        llm = self._runner.alive()
        try:
            await llm.wake_up()
        except Exception as error:  # out of memory or dead; half mapped memory cannot be repaired
            raise self._runner.broken(f"vLLM did not wake up: {error}") from error
        before, self._probe = self._probe, None
        if before is not None and (after := await self._answer_probe()) != before:
            raise self._runner.broken(f"after sleep it answers differently: {after}, not {before}")

    async def check_asleep(self) -> None:
        """See `Sleeper`: vLLM knows whether its process has died, without asking the process."""
        await self.check_health()

    async def _answer_probe(self) -> list[int]:
        """Token ids of the greedy answer to PROBE, computed without the prefix cache."""
        arguments = {
            "temperature": 0,
            "max_tokens": PROBE_TOKENS,
            "ignore_eos": True,
            "output_kind": RequestOutputKind.FINAL_ONLY,
            "skip_reading_prefix_cache": True,
        }
        prompt = await self._calls.render(PROBE)
        async with aclosing(self._calls.outputs(prompt, arguments)) as outputs:
            return [token async for output in outputs for token in output.outputs[0].token_ids]
