"""The settings of a model as llama.cpp's parameters, and the load of a model with them."""

import logging
from pathlib import Path
from typing import Any

import xllamacpp

from actors.engine import Share
from actors.engines.llamacpp_log import SILENT, load_log
from cluster.plan.gguf import read_header
from cluster.plan.gguf_kind import why_no_text
from cluster.plan.gguf_shape import gguf_checkpoint
from cluster.plan.llamacpp_memory import batch_tokens
from configs.llamacpp import Speculation
from configs.models import LlamaCppModel

ALL_LAYERS = -1
"""llama.cpp's number for all layers."""
FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
"""llama.cpp's numbers (`llama_flash_attn_type`)."""

logger = logging.getLogger(__name__)


def load_server(params: Any, log_file: Path) -> tuple[Any, list[str]]:
    """Load a model; return the server, and the errors that llama.cpp logged all the same.

    Args:
        params: llama.cpp's parameters.
        log_file: where llama.cpp writes these errors.

    Raises:
        RuntimeError: the model cannot be loaded; the message is the first error that llama.cpp logged.
    """
    with load_log(log_file, xllamacpp.xllamacpp.__file__) as log:
        params.verbosity = max(params.verbosity, log.verbosity)
        try:
            return xllamacpp.Server(params), log.errors()
        except RuntimeError as error:
            raise RuntimeError(next(iter(log.errors()), str(error))) from error


def require_chat_model(path: Path) -> None:
    """Raise an error if the file cannot be a model that writes text.

    Raises:
        ValueError: the file is no whole GGUF file, or holds what writes no text.
    """
    if (why := why_no_text(read_header(path))) is not None:
        raise ValueError(why)


def keeps_prompts(path: Path) -> bool:
    """Whether llama.cpp can use the beginning of a model's prompts again.

    llama.cpp reads a whole prompt anew if a layer of the model keeps a state (recurrent models) or only
    the last tokens (sliding windows). In its source, tools/server/server-context.cpp says so: "forcing
    full prompt re-processing".
    """
    try:
        model = gguf_checkpoint(read_header(path))
    except (ValueError, OSError):  # the planner does not know the model's family
        return False
    return not model.state_layers and not any(each.window_tokens for each in model.attention)


def native_params(model: LlamaCppModel, share: Share, path: Path, draft: Path | None) -> Any:
    """llama.cpp's parameters for a model.

    Args:
        model: the settings.
        share: the part of its card.
        path: the file of the weights; of a split file, the first part.
        draft: the file of the draft model, or None.

    Raises:
        ValueError: this build of llama.cpp cannot do what the settings demand.
    """
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = model.context_tokens * model.concurrency
    params.n_parallel = model.concurrency
    params.n_batch = params.n_ubatch = batch_tokens(model)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = share.threads
    params.fit_params = False  # by default llama.cpp changes settings until they fit what is free
    params.n_gpu_layers = gpu_layers(model, share)
    if share.gpus > 1:
        params.split_mode = xllamacpp.llama_split_mode.LLAMA_SPLIT_MODE_LAYER
        params.tensor_split = [1.0] * share.gpus
    params.cache_type_k = _type(model.kv_cache_type.k)
    params.cache_type_v = _type(model.kv_cache_type.v)
    params.flash_attn_type = xllamacpp.llama_flash_attn_type(FLASH_ATTENTION[model.flash_attention])
    params.verbosity = SILENT
    params.cache_ram_mib = 0  # by default this cache may grow to 8 GB
    params.n_threads_http = 1
    params.endpoint_metrics = True
    params.force_pure_content_parser = True
    if model.speculation is not None:
        _speculate(params, model.speculation, draft)
    return params


def gpu_layers(model: LlamaCppModel, share: Share) -> int:
    """llama.cpp's number of layers on the GPU.

    Raises:
        ValueError: the recipe wants layers on the GPU, and this build cannot use it.
    """
    if not share.on_gpu:
        return 0
    if not has_gpu_backend():
        if model.gpu_layers not in ("auto", 0):
            raise ValueError(
                f"gpu_layers is {model.gpu_layers}, and this build of llama.cpp cannot use a GPU: "
                "install a build of xllamacpp for it, or leave gpu_layers out"
            )
        logger.warning("this build of llama.cpp cannot use a GPU: the model runs on the CPU")
        return 0
    return ALL_LAYERS if isinstance(model.gpu_layers, str) else model.gpu_layers


def has_gpu_backend() -> bool:
    """Whether this build of llama.cpp finds a GPU that it can use."""
    kinds = xllamacpp.ggml_backend_dev_type
    gpus = (kinds.GGML_BACKEND_DEVICE_TYPE_GPU, kinds.GGML_BACKEND_DEVICE_TYPE_IGPU)
    return any(device["type"] in gpus for device in xllamacpp.get_device_info())


def _type(name: str) -> Any:
    return getattr(xllamacpp.ggml_type, f"GGML_TYPE_{name.upper()}")


def _speculate(params: Any, speculation: Speculation, draft: Path | None) -> None:
    kinds, native = xllamacpp.common_speculative_type, params.speculative
    if draft is not None:
        native.types = [kinds.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
        native.draft.mparams.path = str(draft)
        native.draft.n_max = speculation.tokens
        native.draft.n_gpu_layers = params.n_gpu_layers
        return
    native.types = [kinds.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
    native.ngram_simple.size_n = speculation.match_tokens
    native.ngram_simple.size_m = speculation.tokens
