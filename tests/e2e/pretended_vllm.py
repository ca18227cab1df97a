"""vLLM's own planning of KV caches, on a CPU that pretends to be a GPU.

It needs vLLM 0.33 without its CUDA companions (`make vllm-planning`), and a process of its own, because
it replaces vLLM's platform.
"""

import dataclasses
import json
import os
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

from actors.engine import Share
from actors.engines.vllm_arguments import engine_arguments
from cluster.plan.checkpoint import Checkpoint
from cluster.plan.kv_cache import STATES
from configs.schema import VllmModel

TINY = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 10_000_000,
    "torch_dtype": "bfloat16",
}
"""A config.json with which vLLM makes its settings; the layers come from the shapes to check."""


def pretend_gpu(capability: tuple[int, int] = (8, 0)) -> None:
    """Make vLLM believe that it runs on an NVIDIA GPU, without any of its CUDA libraries."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    for name in ("vllm._C_stable_libtorch", "vllm._moe_C_stable_libtorch"):
        sys.modules[name] = types.ModuleType(name)
    for name in ("vllm.vllm_flash_attn", "vllm.vllm_flash_attn.flash_attn_interface"):
        sys.modules[name] = _AnyFunction(name)
    import vllm.platforms
    from vllm.platforms.cuda import NonNvmlCudaPlatform
    from vllm.platforms.interface import DeviceCapability

    answers: dict[str, Any] = {
        "get_device_capability": DeviceCapability(*capability),
        "has_device_capability": True,
        "get_device_name": "NVIDIA A100-SXM4-80GB",
        "get_device_total_memory": 80 << 30,
        "is_fully_connected": True,
        "num_compute_units": 108,
        "is_cumem_allocator_available": True,
        "is_sleep_mode_available": True,
    }
    methods = {
        name: classmethod(lambda *_, value=value, **__: value) for name, value in answers.items()
    }
    vllm.platforms._current_platform = type("PretendedGpu", (NonNvmlCudaPlatform,), methods)()
    import vllm.model_executor.models.registry as registry  # this module asks for the platform

    registry._LazyRegisteredModel.inspect_model_cls = lambda _: _model_info(registry._ModelInfo)


class _AnyFunction(types.ModuleType):
    """A module that has every function."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: None if name.endswith("reason") else True


def _model_info(kind: Any) -> Any:
    """What vLLM's registry would find out about a model's class: that it writes text."""
    known = {
        "architecture": "LlamaForCausalLM",
        "is_text_generation_model": True,
        "supports_pp": True,
        "default_seq_pooling_type": "LAST",
        "default_tok_pooling_type": "ALL",
        "attn_type": "decoder",
        "score_type": "bi-encoder",
    }
    missing = dataclasses.MISSING
    needed = [f for f in dataclasses.fields(kind) if f.default is f.default_factory is missing]
    return kind(**{field.name: known.get(field.name, False) for field in needed})


class VllmPlanner:
    """vLLM's planning code with our settings for a model.

    Most backends resolve to the layout LBNHC; those of indexers, beside latent attention, to BLHNC.
    """

    def __init__(self, model: VllmModel, layout: str = "LBNHC") -> None:
        from vllm import AsyncEngineArgs
        from vllm.v1.attention.backends.utils import record_kv_cache_layout

        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(TINY))
            model = model.model_copy(update={"quantization": None, "load_format": "dummy"})
            share = Share(1, True, 0.5, 1 << 30, 1)
            arguments = engine_arguments(Path(folder), model, share, "gpu")
            arguments["skip_tokenizer_init"] = True
            self.config = AsyncEngineArgs(**arguments).create_engine_config()
        record_kv_cache_layout(self.config.cache_config, layout)
        self.config.cache_config.mamba_cache_mode = "align"

    def set_lengths(self, context: int, batch: int) -> None:
        """Set the tokens of the longest sequence and of a step."""
        self.config.model_config.max_model_len = context
        self.config.scheduler_config.max_num_batched_tokens = batch

    def least_bytes(self, specs: dict[str, Any]) -> int:
        """The least bytes of a cache that vLLM accepts; checked with one byte less."""
        from vllm.v1.core import kv_cache_planning as planning
        from vllm.v1.core.kv_cache_config_builder import get_kv_cache_config_builder

        builder = get_kv_cache_config_builder(self.config)
        groups = planning.get_global_kv_cache_groups(self.config, [dict(specs)])
        least = planning._max_memory_usage_bytes_from_groups(builder, self.config, groups)
        least += planning._pool_bytes_per_block_from_builder(builder, self.config, groups)
        assert self.accepts(specs, least)
        assert not self.accepts(specs, least - 1)
        return int(least)

    def accepts(self, specs: dict[str, Any], available: int) -> bool:
        """Whether vLLM starts with these layers and so many bytes for the cache."""
        from vllm.v1.core import kv_cache_planning as planning

        groups = planning.get_global_kv_cache_groups(self.config, [dict(specs)])
        try:
            planning.get_kv_cache_configs(self.config, [dict(specs)], [available], groups)
        except ValueError as error:
            if "KV cache" not in str(error) and "cache blocks" not in str(error):
                raise
            return False
        return True


def layer_specs(checkpoint: Checkpoint, value_bytes: int, block: int) -> dict[str, Any]:
    """vLLM's description of each layer's cache, as its attention layers make them.

    Args:
        checkpoint: the model's layers.
        value_bytes: bytes of one value in the cache.
        block: tokens of a block that the kernels want.
    """
    import torch
    from vllm.v1.kv_cache_interface import FullAttentionSpec, MLAAttentionSpec, SlidingWindowSpec

    dtypes = {1: torch.uint8, 2: torch.bfloat16, 4: torch.float32}
    block, states = _with_states(checkpoint, value_bytes, block)
    specs: dict[str, Any] = {}
    for kind in checkpoint.attention:
        dtype = dtypes[kind.value_bytes or value_bytes]
        common = {"block_size": block, "num_kv_heads": 1, "dtype": dtype}
        for _ in range(kind.layers):
            name = f"model.layers.{len(specs)}.attn"
            if kind.window_tokens:
                half = {"head_size": kind.kv_width // 2, "sliding_window": kind.window_tokens}
                specs[name] = SlidingWindowSpec(**common, **half)
            elif checkpoint.kv_heads == 1:
                specs[name] = MLAAttentionSpec(**common, head_size=kind.kv_width)
            else:
                specs[name] = FullAttentionSpec(**common, head_size=kind.kv_width // 2)
    return specs | states


def _with_states(checkpoint: Checkpoint, value_bytes: int, block: int) -> tuple[int, dict[str, Any]]:
    """The tokens of a block, and the layers with states, as Platform._align_hybrid_block_size makes
    them."""
    import torch
    from vllm.v1.kv_cache_interface import MambaSpec

    if not checkpoint.state_bytes:
        return block, {}
    state = -(-checkpoint.state_bytes // checkpoint.state_layers)
    token = max(each.token_bytes(value_bytes) for each in checkpoint.attention)
    block *= -(-state // (block * token))
    spec = MambaSpec(
        block_size=block,
        shapes=((state,),),
        dtypes=(torch.uint8,),
        page_size_padded=block * token,
        mamba_cache_mode="align",
        num_prefill_checkpoint_blocks=STATES - 2,
    )
    return block, {f"model.layers.{n}.mixer": spec for n in range(checkpoint.state_layers)}
