"""Starts and ends vLLM for one model, and knows whether it still runs.

AsyncLLM runs the model in a child process. Nothing revives a child that died: every call and
`check_health` then raise EngineUnavailable, and the replica has to be replaced.
"""

import asyncio
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.engine import Share
from actors.engines.vllm_adapters import find_adapters, lora_arguments
from actors.engines.vllm_arguments import REPLICA, engine_arguments, environment
from actors.engines.vllm_chat import Chat
from actors.engines.vllm_library import (
    AsyncEngineArgs,
    AsyncLLM,
    EngineDeadError,
    LoRARequest,
    ReasoningConfig,
    current_platform,
)
from actors.engines.vllm_processes import Processes, child_processes, end_processes
from actors.weights.lookup import engine_folder
from cluster.cards.card import Kind
from cluster.plan.checkpoint import from_folder
from cluster.plan.footprint import footprint
from configs.errors import EngineUnavailable
from configs.schema import VllmModel

LOOK_S = 0.2
"""Seconds between two looks for processes of a start that was cancelled."""

logger = logging.getLogger(__name__)


class Runner:
    """vLLM with one model.

    Args:
        name: the model's name, for errors.
        model: the model's settings.
        share: the engine's part of its card. If it gives no size for the KV cache, the engine takes the
            size that a plan would give it.
    """

    def __init__(self, name: str, model: VllmModel, share: Share) -> None:
        self._name = name
        self._model = model
        self._share = share
        self.llm: Any = None
        """vLLM's AsyncLLM; None while it does not run."""
        self.chat: Any = None
        """The chat format of the model (`Chat`); None before the first start."""
        self.adapters: dict[str, LoRARequest] = {}
        """What vLLM is told of each adapter, by the adapter's name."""
        self._failure: str | None = "vLLM is not running"
        self._loading: asyncio.Future[AsyncLLM] | None = None
        self._others: Processes | None = None

    def alive(self) -> Any:
        """vLLM's AsyncLLM.

        Raises:
            EngineUnavailable: vLLM does not run, or is broken.
        """
        if self._failure is not None:
            raise EngineUnavailable(self._failure, model=self._name)
        return self.llm

    def broken(self, failure: str) -> EngineUnavailable:
        """Mark vLLM as unusable and return the error to raise; `stop` still has to be called."""
        logger.error("model %s: %s", self._name, failure)
        self._failure = failure
        return EngineUnavailable(failure, model=self._name)

    @property
    def keeps_prompts(self) -> bool:
        """Whether vLLM can use the beginning of a prompt again. For hybrid models, which keep states
        beside keys and values, vLLM seldom can (its issues 40696 and 51250)."""
        if self.llm is None or self._failure is not None:
            return False
        config = self.llm.vllm_config
        return bool(config.cache_config.enable_prefix_caching) and not config.model_config.is_hybrid

    async def start(self, folder: Path) -> None:
        """Start vLLM with a checkpoint. If this fails or is cancelled, `stop` has to be called."""
        self._others = child_processes()
        self._loading = asyncio.ensure_future(asyncio.to_thread(self._load, folder))
        # A thread cannot be cancelled. If this start is, `stop` waits for the end of the thread.
        self.llm = await asyncio.shield(self._loading)
        self._failure = None
        self.chat.note_tokenizer(self.llm.get_tokenizer())
        for adapter in self.adapters.values():
            await self.llm.add_lora(adapter)  # an adapter that cannot be loaded shows now

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
        self.adapters = {
            each.name: LoRARequest(each.name, each.number, str(each.folder)) for each in adapters
        }
        self.chat = Chat(self._model, folder)
        if (reasoning := self.chat.reasoning_config) is not None:
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

    async def check_health(self) -> None:
        """Raise EngineUnavailable if vLLM does not run, or is broken."""
        try:
            await self.alive().check_health()
        except EngineDeadError as error:
            raise self.broken("vLLM's engine process died") from error

    async def stop(self, calls: Iterable[str]) -> None:
        """End vLLM and these calls. When this returns, vLLM's processes are gone, and their memory is
        free."""
        await self._end_loading()
        llm, self.llm = self.llm, None
        self._failure = "vLLM is stopped"
        processes = self._processes()
        if llm is not None:
            with suppress(EngineDeadError):
                await llm.abort(list(calls))
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
            self.llm = loading.result()

    def _processes(self) -> Processes:
        """vLLM's processes: those below this one that were not there before vLLM was started."""
        return set() if self._others is None else child_processes() - self._others
