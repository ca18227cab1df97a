"""What the makers of a model advise for its sampling, as the model's own files say.

A folder has `generation_config.json` of Hugging Face's transformers. The names that count are those
that vLLM 0.33 takes (vllm/config/model.py: get_diff_sampling_param), without the limit of tokens. As
in vLLM, `do_sample` does not count. A GGUF file has `general.sampling.*`, which llama.cpp's converter
takes from the same file (gguf-py/gguf/constants.py: Keys.General.SAMPLING_*).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cluster.plan.checkpoint import UnknownCheckpoint
from cluster.plan.gguf import NotGguf, read_header
from configs.sampling import DRAWING, ModelSampling

GENERATION_CONFIG = "generation_config.json"
"""The file of a folder in which a model's makers advise a sampling."""
LONGEST_BYTES = 2**20
"""Bytes of the longest such file that is read. Those on the Hub have less than 1 kB."""
GGUF_KEYS = {
    "temperature": "general.sampling.temp",
    "top_p": "general.sampling.top_p",
    "top_k": "general.sampling.top_k",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}
"""Keys of a GGUF file by our name of the value."""


def advised_sampling(weights: Path) -> dict[str, Any]:
    """The values that a model's makers advise; empty if the files advise none.

    Args:
        weights: the model's folder, or its GGUF file.

    Raises:
        UnknownCheckpoint: the files cannot be read, or a value is not allowed.
    """
    try:
        advice = _of_folder(weights) if weights.is_dir() else _of_gguf(weights)
    except (OSError, NotGguf, ValueError, RecursionError) as error:
        message = f"cannot read which sampling the makers of {weights.name!r} advise: {error}"
        raise UnknownCheckpoint(message) from error
    try:
        return ModelSampling.model_validate(advice).said
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        message = (
            f"{weights.name!r} advises {name} {first['input']!r:.80}, which cannot be: {first['msg']}; "
            f"say {name} in the recipe's sampling, without `checkpoint`"
        )
        raise UnknownCheckpoint(message) from error


def _of_folder(folder: Path) -> dict[str, Any]:
    file = folder / GENERATION_CONFIG
    if not file.is_file():
        return {}
    if file.stat().st_size > LONGEST_BYTES:
        raise ValueError(f"{GENERATION_CONFIG} has more than {LONGEST_BYTES} bytes")
    config = json.loads(file.read_bytes())
    if not isinstance(config, Mapping):
        raise ValueError(f"{GENERATION_CONFIG} is no JSON object")
    return {name: _number(name, config[name]) for name in DRAWING if config.get(name) is not None}


def _of_gguf(file: Path) -> dict[str, Any]:
    metadata = read_header(file).metadata
    found = {name: metadata[key] for name, key in GGUF_KEYS.items() if key in metadata}
    return {name: _number(name, value) for name, value in found.items()}


def _number(name: str, value: Any) -> Any:
    """The value as a number of the kind that the setting has. GGUF holds 0.95 as 0.949999988."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if name == "top_k" and float(value).is_integer():
        return int(value)
    return float(f"{value:.6g}")
