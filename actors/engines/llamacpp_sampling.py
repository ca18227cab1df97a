"""What llama.cpp's server is told of a call's sampling."""

from typing import Any

from xllamacpp import json_schema_to_grammar

from actors.engines.llamacpp_schema import one_line
from actors.engines.llamacpp_tools import tool_grammar
from configs.schema import Sampling
from configs.tool_use import ToolUse

ANY_JSON = {"type": "object"}
"""The JSON schema of any JSON object."""


def sampling_fields(sampling: Sampling) -> dict[str, Any]:
    """The fields of a request by which tokens are drawn.

    Every value is sent: llama.cpp has defaults of its own (top_k 40, min_p 0.05), and takes others from
    the file (common/common.cpp: common_init_sampler_from_model).
    """
    sampling = sampling.filled()
    fields: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": max(0, sampling.top_k or 0),
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "max_tokens": sampling.most_tokens,
    }
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    if sampling.seed is not None:
        fields["seed"] = sampling.seed % (2**32 - 1)  # llama.cpp takes 2**32 - 1 for a random seed
    extra = dict(sampling.extra)
    structure, use = extra.pop("structure", None), extra.pop("tool_use", None)
    if use is not None:
        return fields | extra | {"grammar": tool_grammar(ToolUse.model_validate(use), structure)}
    return fields | extra | ({} if structure is None else _grammar(structure))


def _grammar(structure: dict[str, Any]) -> dict[str, Any]:
    if "grammar" in structure:
        return {"grammar": structure["grammar"]}
    if "choice" in structure:
        return {"grammar": "root ::= " + " | ".join(map(_literal, structure["choice"]))}
    # As a schema, llama.cpp would hold the chat template's own tokens before the answer to it too.
    return {"grammar": json_schema_to_grammar(one_line(structure.get("json_schema", ANY_JSON)))}


def _literal(text: str) -> str:
    """A text in llama.cpp's notation of grammars (grammars/README.md)."""
    escaped = text.replace("\\", r"\\").replace('"', r"\"")
    return '"' + "".join(f"\\x{ord(c):02X}" if ord(c) < 32 else c for c in escaped) + '"'
