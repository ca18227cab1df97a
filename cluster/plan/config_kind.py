"""Whether a model's config.json is that of a model that writes text. Pure.

The classes are those that vLLM 0.33 runs as models of embeddings, of classes and of rewards
(vllm/model_executor/models/registry.py). vLLM would start them, and refuse every chat.
"""

import re
from collections.abc import Mapping
from typing import Any

WRITES = re.compile(r".*For(CausalLM|ConditionalGeneration|Seq2SeqLM)|.*LMHeadModel|.*Chat(GLM)?Model")
"""Classes that write text, whatever else their names say."""
NAMES = (
    (r".*For(Sequence|Token)Classification|.*ForRanking", "it is a reranker or tells classes of texts"),
    (r".*For(Process)?RewardModel|.*RewardModel", "it is a reward model, which grades answers"),
    (r".*ForMaskedLM", "it fills gaps in texts (masked language model)"),
    (r"(CLIP|Siglip)\w*Model|.*ForRetrieval|ColBERT\w*|HF_ColBERT", "it is a model of embeddings"),
    (
        r"(?!ChatGLM).*((?i:bert)|Embed|Bidirectional)\w*Model"
        r"|(Mistral|Llama|Qwen2|Qwen3|Gemma|Gemma2|Gemma3Text|Gte|GteNew|New|MPNet|T5Encoder)Model",
        "it is a model of embeddings",
    ),
)
"""Patterns of classes, and what such a model is."""
POOLING = "sentence_transformers.models.Pooling"
"""What a modules.json of a model of embeddings has (sentence-transformers)."""


def why_no_chat(config: Any, modules: Any = None) -> str | None:
    """Why a model writes no text, and what to do; None if it may.

    Args:
        config: the parsed config.json.
        modules: the parsed modules.json beside it; None if there is none.
    """
    found = config.get("architectures") if isinstance(config, Mapping) else None
    names = [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
    if isinstance(modules, list) and any(
        isinstance(each, Mapping) and each.get("type") == POOLING for each in modules
    ):
        return "it is a model of embeddings (modules.json has a pooling), and writes no text"
    if not names or any(WRITES.fullmatch(name) for name in names):
        return None
    for pattern, what in NAMES:
        if all(re.fullmatch(pattern, name) for name in names):
            return f"{what} ({names[0]}), and writes no text: take a model for chat"
    return None
