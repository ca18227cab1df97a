"""Whether vLLM 0.33 can run a checkpoint's numbers on a GPU, and why not. Pure.

`LEAST` has the methods that vLLM knows (vllm/model_executor/layers/quantization/__init__.py:14) with
the least compute capability that each asks for (`get_min_capability`, which vllm/config/vllm.py:930
holds against the GPU). Below the capability at which a GPU computes in FP8 (8.9) or FP4 (10.0), vLLM
unpacks such weights in its Marlin kernels and computes in 16 bits, so both run from 7.5 or 8.0 on.
"""

import re

from cluster.plan.checkpoint_facts import Checkpoint
from configs.schema import VllmModel

VERSION = "0.33"
"""The version of vLLM that this table follows."""
BUILT_FOR = 7.5
"""The least compute capability that vLLM's own kernels are built for (CUDA_SUPPORTED_ARCHS in its
CMakeLists.txt, with CUDA 13)."""
BF16 = 8.0
"""The least capability that computes in bfloat16 (platforms/cuda.py:258, 639)."""
FP8_CACHE = 8.0
"""The least capability at which vLLM reads a KV cache in 8-bit floats: FlashInfer's
(v1/attention/backends/flashinfer.py:696)."""
FP8_CACHE_ANYWHERE = 8.9
"""From here on, Triton's kernels read such a cache too (v1/attention/backends/triton_attn.py:514), and
FlashAttention does from 9.0 on."""
LEAST = {
    "awq": 7.5,  # auto_awq.py:233
    "auto_awq": 7.5,
    "awq_marlin": 7.5,
    "gptq": 7.5,  # auto_gptq.py:182 says 6.0, utils/marlin_utils.py:66 refuses below 7.5
    "auto_gptq": 7.5,
    "gptq_marlin": 7.5,
    "fp8": 7.5,  # fp8.py:146
    "deepseek_v4_fp8": 7.5,
    "modelopt": 8.0,  # modelopt.py:449
    "modelopt_fp4": 7.5,  # modelopt.py:772
    "modelopt_mxfp8": 8.0,  # modelopt.py:1231
    "modelopt_mixed": 7.5,  # modelopt.py:1647
    "mxfp8": 8.0,
    "mxfp4": 8.0,  # mxfp4.py:71
    "gpt_oss_mxfp4": 8.0,
    "compressed-tensors": 7.5,  # compressed_tensors/schemes: 7.5 but for the formats below
    "experts_int8": 8.0,  # experts_int8.py:42
    "quark": 7.0,  # quark/quark.py:127
    "moe_wna16": 7.0,  # moe_wna16.py:110
    "torchao": 7.5,  # torchao.py:160
    "inc": 6.0,  # inc/inc.py:266
    "auto-round": 6.0,  # inc/inc.py:361: vLLM takes it for inc
    "humming": 7.5,  # humming.py:167
}
"""The least compute capability of each method that vLLM starts."""
DEPRECATED = frozenset({"fbgemm_fp8", "fp_quant"})
"""Methods that vLLM knows, and starts only with a setting that is not set here
(vllm/model_executor/layers/quantization/__init__.py:50)."""
FORMATS = {
    "pack-quantized": 7.5,
    "int-quantized": 7.5,
    "float-quantized": 7.5,
    "naive-quantized": 7.5,
    "nvfp4-pack-quantized": 7.5,
    "mxfp4-pack-quantized": 8.0,
    "mxfp8-quantized": 7.5,
    "mixed-precision": 7.5,
    "dense": 7.5,
}
"""The least compute capability for each format of compressed-tensors
(compressed_tensors/schemes/*.py)."""
FP8_SERIES = 8.9
"""The least capability at which a format in 8-bit floats for quark runs
(quark/schemes/quark_w8a8_fp8.py:75)."""
BITS = {
    "awq": (4,),
    "auto_awq": (4,),
    "awq_marlin": (4,),
    "gptq": (4, 8),
    "auto_gptq": (4, 8),
    "gptq_marlin": (4, 8),
}
"""Bits that a method's kernels take (auto_awq.py: TYPE_MAP, auto_gptq.py:99)."""
SPARSE_ATTENTION = 9.0
"""The least capability of sparse latent attention (v1/attention/backends/mla/flashmla_sparse.py:203,
flashinfer_mla_sparse.py:105,192)."""


def refusal(checkpoint: Checkpoint, capability: str | None) -> str | None:
    """The reason why vLLM cannot run this checkpoint on a GPU; None if it can.

    Args:
        checkpoint: the checkpoint.
        capability: the GPU's compute capability, such as "8.0"; None if it is unknown.
    """
    reason = quantization_refusal(checkpoint.quantization, capability, checkpoint.quantization_detail)
    if reason is not None:
        return reason
    here = _number(capability)
    if (
        here is not None
        and here < SPARSE_ATTENTION
        and any(kind.packed_bytes for kind in checkpoint.attention)
    ):
        return (
            f"its sparse attention needs compute capability {SPARSE_ATTENTION}, and this GPU has {here}"
        )
    return None


def settings_refusal(model: VllmModel, capability: str | None) -> str | None:
    """The reason why vLLM cannot run a model with these settings on a GPU, whatever its weights are;
    None if it can.

    Args:
        model: the model's settings.
        capability: the GPU's compute capability, such as "8.0"; None if it is unknown.
    """
    here = _number(capability)
    if here is None:
        return None
    has = f"and this GPU has {here}"
    if here < BUILT_FOR:
        return (
            f"vLLM {VERSION} is built for compute capability {BUILT_FOR} and later, {has}; llama.cpp "
            f"runs "
            "models in GGUF files on it"
        )
    if model.dtype == "bfloat16" and here < BF16:
        return f"dtype bfloat16 needs compute capability {BF16}, {has}; give auto or float16"
    if model.kv_cache_dtype == "fp8" and here < FP8_CACHE:
        return f"kv_cache_dtype fp8 needs compute capability {FP8_CACHE}, {has}; leave it out"
    return None


def settings_remark(model: VllmModel, capability: str | None) -> str | None:
    """What a person should know of these settings on a GPU that takes them; None if that is nothing."""
    here = _number(capability)
    if model.kv_cache_dtype == "fp8" and here is not None and FP8_CACHE <= here < FP8_CACHE_ANYWHERE:
        return (
            f"kv_cache_dtype fp8: below compute capability {FP8_CACHE_ANYWHERE} only FlashInfer "
            f"reads such "
            f"a cache, and this GPU has {here}; without FlashInfer (pip install flashinfer-python) and "
            "CUDA's compiler the engine does not start, and models with attention sinks (gpt-oss) "
            "never do"
        )
    return None


def quantization_refusal(method: str | None, capability: str | None, detail: str = "") -> str | None:
    """The reason why vLLM cannot run weights that are quantized so on a GPU; None if it can.

    Args:
        method: vLLM's name of the method; None if the weights are not quantized.
        capability: the GPU's compute capability, such as "8.0"; None if it is unknown.
        detail: the format or the bits, as `Checkpoint.quantization_detail` has them.
    """
    if method is None:
        return None
    if method in DEPRECATED:
        return f"vLLM {VERSION} no longer starts weights in {method!r}"
    if method not in LEAST:
        return f"vLLM {VERSION} cannot run weights in {method!r}; it can run {', '.join(sorted(LEAST))}"
    reason = _detail_refusal(method, detail)
    if reason is not None:
        return reason
    here, least = _number(capability), _least(method, detail)
    if here is None or here >= least:
        return None
    words = f"{method!r} ({detail})" if detail else repr(method)
    return (
        f"vLLM {VERSION} runs weights in {words} from compute capability {least} on, "
        f"and this GPU has {here}"
    )


def _detail_refusal(method: str, detail: str) -> str | None:
    """The reason why no GPU runs this format, these bits or this symmetry."""
    if method == "compressed-tensors" and detail and detail not in FORMATS:
        known = ", ".join(FORMATS)
        return (
            f"vLLM {VERSION} cannot run compressed-tensors in the format {detail!r}; it can run {known}"
        )
    found = re.match(r"(\d+) bits", detail)
    allowed = BITS.get(method)
    if found and allowed and int(found[1]) not in allowed:
        words = " or ".join(str(bits) for bits in allowed)
        return f"vLLM {VERSION} runs {method!r} with {words} bits, and this checkpoint has {found[1]}"
    if allowed and "asymmetric" in detail and method != "awq":
        return f"vLLM {VERSION} runs {method!r} only if it is symmetric, and this checkpoint is not"
    return None


def _least(method: str, detail: str) -> float:
    if method == "compressed-tensors":
        return FORMATS.get(detail, LEAST[method])
    if method == "quark" and "fp8" in detail:
        return FP8_SERIES
    return LEAST[method]


def _number(capability: str | None) -> float | None:
    """A compute capability as a number: "8.6" is 8.6, and "12.0" is 12."""
    if capability is None or not re.fullmatch(r"\d+\.\d", capability):
        return None
    return float(capability)
