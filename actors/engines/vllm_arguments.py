"""The arguments that vLLM gets for a model and its share of a card. Pure: imports nothing of vLLM."""

from pathlib import Path
from typing import Any

from actors.engine import Share as Share
from actors.engines.vllm_tools import structural_tag
from cluster.cards.card import Kind
from cluster.cards.detect import ORDER, PCI_ORDER
from cluster.plan.vllm_extras import guessed_tokens
from cluster.residency.policy import Policy
from configs.extra_parameters import KINDS
from configs.schema import Sampling, VllmModel
from configs.tool_use import ToolUse
from configs.vllm import VllmSpeculation

REPLICA = "SLIMMOA_REPLICA_PID"
"""Environment variable with the replica's process id. vLLM's processes end when that process ends."""
BEFORE_IMPORT = {"VLLM_ENGINE_READY_TIMEOUT_S": f"{Policy().start_timeout_s:.0f}"}
"""Environment variables that vLLM reads when it is imported. This one is how many seconds its engine
process may take to start (vllm/v1/engine/core_client.py, line 29). vLLM's 600 are not enough for 40 GB
from a network share. The keeper of the card gives a start up in the same time."""
HUGGING_FACE_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")
"""Names of tokenizer files. A tokenizer in Hugging Face's format has at least one of these files."""
LONGEST_MATCH = 5
"""Tokens of the longest text that speculation by n-grams looks for among the tokens before."""
CPU_BLOCK_TOKENS = 32
"""Tokens of a block of the KV cache on a CPU. vLLM keeps whole blocks of a prompt, so a call reads up
to one block of an early reading anew. vLLM's kernels for CPUs want a multiple of 32. vLLM's own default
is 128, and 32 was as fast in reading and writing (docs/results.md)."""
WIDEST_GRAPH = 256
"""CUDA graphs are captured for steps of up to this many sequences; larger steps run without a graph."""


def engine_arguments(
    folder: Path, model: VllmModel, share: Share, kind: Kind, draft: Path | None = None
) -> dict[str, Any]:
    """Keyword arguments of `vllm.AsyncEngineArgs`, except for those about adapters.

    Args:
        folder: the model's checkpoint.
        model: the model's settings.
        share: the engine's part of its card.
        kind: the kind of the card.
        draft: the checkpoint that guesses tokens; None if there is none.

    `gpu_memory_utilization` and `kv_cache_memory_bytes` are always both given. At its start, vLLM only
    checks whether the utilization is free. Its default of 0.92 never is on a card with a second engine.
    And if vLLM sized the KV cache itself, it would count what other engines allocate at the same time.
    """
    guessed = guessed_tokens(model)
    arguments: dict[str, Any] = {
        "model": str(folder),
        # With Mistral's own files beside Hugging Face's, vLLM would take those for config and tokenizer
        # (vllm/transformers_utils/config.py). The plan and `token_ends` read Hugging Face's.
        "config_format": "hf" if (folder / "config.json").exists() else "auto",
        "tokenizer_mode": "hf" if has_tokenizer(folder) else "auto",
        # A mixture is text. The encoders of images and sounds would take memory that is not planned.
        "language_model_only": True,
        "quantization": model.quantization,
        "dtype": model.dtype,
        "kv_cache_dtype": model.kv_cache_dtype,
        # "auto" would fall back to pickled weights.
        "load_format": "dummy" if model.load_format == "dummy" else "safetensors",
        "trust_remote_code": model.trust_remote_code,
        "enforce_eager": model.eager,
        "max_model_len": model.context_tokens,
        "max_num_seqs": model.concurrency,
        "max_num_batched_tokens": max(model.batch_tokens, model.concurrency * (1 + guessed)),
        "gpu_memory_utilization": share.utilization,
        "kv_cache_memory_bytes": share.kv_cache_memory_bytes // share.gpus,  # vLLM counts per GPU
        "generation_config": "vllm",  # sampling follows the recipe, not the checkpoint
        "enable_sleep_mode": kind == "gpu",
        "disable_log_stats": True,
        "scheduling_policy": "priority",  # a warm-up comes after all calls
        "worker_extension_cls": "actors.engines.vllm_child.FollowsParent",
    }
    if share.gpus > 1:
        # Left to choose, vLLM would start Ray actors wherever it finds a placement group.
        arguments |= {"tensor_parallel_size": share.gpus, "distributed_executor_backend": "mp"}
    if kind == "cpu":
        # On a CPU, vLLM 0.32 dies when a step cuts the prompt of a call that has a seed ("CPU Generator
        # does not use offset"). So a step takes whole prompts there.
        step = max(model.context_tokens, arguments["max_num_batched_tokens"])
        arguments |= {"enable_chunked_prefill": False, "max_num_batched_tokens": step}
        arguments["block_size"] = CPU_BLOCK_TOKENS
    elif not model.eager:
        sizes = [size * (1 + guessed) for size in graph_sizes(model.concurrency)]
        arguments["compilation_config"] = {"cudagraph_capture_sizes": sizes}
    if model.speculation is not None:
        arguments["speculative_config"] = speculative_config(model.speculation, draft, share.gpus)
    return arguments


def speculative_config(speculation: VllmSpeculation, draft: Path | None, gpus: int) -> dict[str, Any]:
    """vLLM's `speculative_config` (vllm/config/speculative.py).

    vLLM looks for the longest text that occurred before, between two lengths. Its own default for both
    is 5.
    """
    method = "draft_model" if speculation.method == "draft" else speculation.method
    config: dict[str, Any] = {"method": method, "num_speculative_tokens": speculation.tokens}
    if speculation.method == "ngram":
        config["prompt_lookup_min"] = speculation.match_tokens
        config["prompt_lookup_max"] = max(LONGEST_MATCH, speculation.match_tokens)
    if draft is not None:
        config |= {"model": str(draft), "draft_tensor_parallel_size": gpus}
    return config


def has_tokenizer(folder: Path) -> bool:
    """Whether a checkpoint's folder has a tokenizer in Hugging Face's format. Some of Mistral's have
    only `tekken.json`, which vLLM reads with another tokenizer."""
    return any((folder / name).exists() for name in HUGGING_FACE_TOKENIZERS)


def graph_sizes(sequences: int) -> list[int]:
    """Sizes of steps for which CUDA graphs are captured: a largest size and all powers of two below it.

    The largest is `sequences`, but at most WIDEST_GRAPH. vLLM's default has dozens of sizes up to 512,
    and the graphs stay on the card during sleep.
    """
    most = min(sequences, WIDEST_GRAPH)
    return [*(2**n for n in range((most - 1).bit_length())), most]


def environment(model: VllmModel, share: Share, kind: Kind) -> dict[str, str]:
    """Environment variables for vLLM and for the processes that vLLM starts."""
    variables = {"VLLM_NO_USAGE_STATS": "1"} | BEFORE_IMPORT
    if kind == "gpu":
        variables |= {
            ORDER: PCI_ORDER,  # the replica's GPUs are numbered as NVML numbers them
            # FlashInfer's sampler is compiled at an engine's first start and needs nvcc, which vLLM
            # does not bring along (vllm#49497). Calls with a seed, as mixtures make them, never use it
            # (vllm/v1/worker/gpu/sample/sampler.py, line 306).
            "VLLM_USE_FLASHINFER_SAMPLER": "0",
        }
    if kind == "cpu":
        variables |= {
            "OMP_NUM_THREADS": str(share.threads),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # binding would leave a core unused
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine's process needs no worker process
        }
    if kind == "cpu" and model.eager:
        # Even eager mode compiles some small functions at their first use: the first answer with
        # logprobs took 17 s.
        variables["TORCH_COMPILE_DISABLE"] = "1"
    return variables


def sampling_arguments(sampling: Sampling) -> dict[str, Any]:
    """Keyword arguments of `vllm.SamplingParams`."""
    sampling = sampling.filled()
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "max_tokens": sampling.max_tokens,
        "stop": list(sampling.stop) or None,
        "seed": None
        if sampling.seed is None
        else sampling.seed % 2**63,  # vLLM takes -1 for a random seed
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "logprobs": sampling.top_logprobs,
    } | _extra(sampling)


def _extra(sampling: Sampling) -> dict[str, Any]:
    """Further arguments; `structured_outputs` are those of vLLM's `StructuredOutputsParams`."""
    extra = dict(sampling.extra)
    if "min_tokens" in extra:  # vLLM refuses a call whose most tokens are fewer
        extra["min_tokens"] = min(extra["min_tokens"], sampling.most_tokens)
    if "logit_bias" in extra:
        extra["logit_bias"] = {int(token): bias for token, bias in extra["logit_bias"].items()}
    structure, use = extra.pop("structure", None), extra.pop("tool_use", None)
    if use is not None:
        tag = structural_tag(ToolUse.model_validate(use), structure)
        extra["structured_outputs"] = {"structural_tag": tag}
    elif structure is not None:
        names = {"json_schema": "json"}
        extra["structured_outputs"] = {
            names.get(kind, kind): v for kind, v in structure.items() if kind in KINDS
        }
    return extra
