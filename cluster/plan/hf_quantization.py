"""What a checkpoint says of its numbers: how its weights are quantized, and the type of its KV cache.
Pure.

It follows vLLM's reading (vllm/transformers_utils/model_arch_config_convertor.py:
_normalize_quantization_config; the `override_quantization_method` of each method;
vllm/utils/torch_utils.py: get_kv_cache_quant_algo_string).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.plan.config_keys import Keys, bad

PLACES = ("quantization_config", "compression_config")
"""Keys that hold how a checkpoint is quantized."""
MODELOPT = {"FP8": "modelopt", "MIXED_PRECISION": "modelopt_mixed"}
"""vLLM's names of modelopt's methods, by modelopt's names in full."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """How the numbers of a checkpoint are stored and asked to be cached."""

    method: str | None = None
    """vLLM's name of the method by which the weights are quantized."""
    weights: str = ""
    """Details of the method: the format of compressed-tensors, or bits such as "4 bits"."""
    kv_dtype: str | None = None
    """Number type that the checkpoint asks for in the KV cache: "fp8" or "nvfp4"; None if it asks for
    no type."""


def read_numbers(config: Mapping[str, Any], text: Mapping[str, Any], beside: Any = None) -> Numbers:
    """How the numbers of a checkpoint are stored.

    Args:
        config: the whole config.json.
        text: the part of the language model.
        beside: the parsed hf_quant_config.json; None if there is no such file. vLLM reads it only if
            config.json says nothing.

    Raises:
        BadConfig: a value cannot be right.
    """
    for place in (config, text):
        for name in PLACES:
            if place.get(name) is not None:
                return _parsed(Keys(place[name], name=name), name, place)
    if beside is not None:
        return _parsed(Keys(beside, name="hf_quant_config.json"), "hf_quant_config.json", config)
    return Numbers()


def _parsed(keys: Keys, place: str, config: Mapping[str, Any]) -> Numbers:
    inner = keys.part("quantization") or keys
    producer = keys.part("producer")
    method = keys.text("quant_method").lower().replace("compressed_tensors", "compressed-tensors")
    algorithm = (inner.text("quant_algo") or keys.text("quant_algo")).upper()
    by_modelopt = producer is not None and producer.text("name") == "modelopt"
    if method.startswith("modelopt") or (not method and (by_modelopt or algorithm)):
        method = _modelopt(algorithm, place)
        return Numbers(method, algorithm, _modelopt_cache(keys, inner))
    if not method:
        raise bad(f"{place}.quant_method", keys.find("quant_method")[1], "the name of a method")
    family = config.get("model_type")
    if method == "fp8" and family in ("deepseek_v4", "deepseek_v41"):
        method = "deepseek_v4_fp8"
    if method == "mxfp4" and family == "gpt_oss":
        method = "gpt_oss_mxfp4"
    asks_fp8 = method == "compressed-tensors" and keys.part("kv_cache_scheme") is not None
    return Numbers(method, _detail(keys), "fp8" if asks_fp8 else None)


def _detail(keys: Keys) -> str:
    """The format of compressed-tensors, or the bits of another method and whether it is symmetric."""
    sparse = keys.part("sparsity_config")
    if sparse is not None and sparse.find("targets")[1]:
        return "sparse"  # vLLM has removed it (compressed_tensors.py:295)
    form = keys.text("format")
    if form:
        return form
    bits = keys.find("bits", "w_bit", "num_bits")[1]
    if not isinstance(bits, int) or isinstance(bits, bool):
        return ""
    return f"{bits} bits" + (", asymmetric" if keys.find("sym")[1] is False else "")


def _modelopt(algorithm: str, place: str) -> str:
    """vLLM's name of a method of modelopt."""
    if algorithm in MODELOPT:
        return MODELOPT[algorithm]
    if "MXFP8" in algorithm:
        return "modelopt_mxfp8"
    if "FP4" in algorithm:
        return "modelopt_fp4"
    if algorithm.startswith("FP8"):
        return "modelopt"
    raise bad(f"{place}.quant_algo", algorithm, "FP8, NVFP4, MXFP8 or MIXED_PRECISION")


def _modelopt_cache(keys: Keys, inner: Keys) -> str | None:
    """The type of the KV cache that a checkpoint of modelopt asks for."""
    for part in (inner, keys):
        name, value = part.find("kv_cache_scheme")
        if isinstance(value, Mapping):
            bits, kind = value.get("num_bits"), value.get("type")
            if kind == "float" and bits == 8 and value.get("dynamic") is False:
                return "fp8"
            return "nvfp4" if kind == "float" and bits == 4 else None
        if value is not None and not isinstance(value, str):
            raise bad(name, value, "an object or a text")
    algorithm = (inner.text("kv_cache_quant_algo") or keys.text("kv_cache_quant_algo")).lower()
    return algorithm if algorithm in ("fp8", "nvfp4") else None
