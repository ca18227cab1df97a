"""GGUF files that hold no model that writes text, as their headers tell."""

from typing import Any

import pytest

from cluster.plan.config_keys import BadConfig
from cluster.plan.gguf import Header, Tensor
from cluster.plan.gguf_kind import why_no_text
from cluster.plan.gguf_shape import gguf_checkpoint

TENSOR = Tensor("token_embd.weight", (32, 100), 1800)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"general.architecture": "clip"}, "(mmproj): name the file of the model itself"),
        ({"general.architecture": "clip", "general.type": "mmproj"}, "(mmproj)"),
        ({"general.architecture": "llama", "general.type": "adapter"}, "it is a LoRA adapter"),
        ({"general.architecture": "", "general.type": "imatrix"}, "an importance matrix (imatrix)"),
        ({"general.architecture": "bert"}, "a model of embeddings or a reranker (bert)"),
        ({"general.architecture": "nomic-bert-moe"}, "a model of embeddings or a reranker"),
        ({"general.architecture": "jina-bert-v2", "jina-bert-v2.pooling_type": 1}, "(mean pooling)"),
        ({"general.architecture": "qwen3", "qwen3.pooling_type": 3}, "(last pooling), and writes no"),
        ({"general.architecture": "qwen3", "qwen3.pooling_type": 4}, "(rank pooling), and writes no"),
        ({"general.architecture": "gemma-embedding"}, "a model of embeddings or a reranker"),
        ({"general.architecture": "llama-embed"}, "a model of embeddings or a reranker"),
        ({"general.architecture": "t5encoder"}, "a model of embeddings or a reranker"),
        ({"general.architecture": "llada"}, "it writes by diffusion"),
        ({"general.architecture": "wavtokenizer-dec"}, "it makes sound and no text"),
        ({"general.architecture": "flux"}, "a model of images or videos (flux)"),
    ],
)
def test_what_writes_no_text_is_named(metadata: dict[str, Any], words: str) -> None:
    header = Header(metadata, (TENSOR,))
    assert words in (why_no_text(header) or "")
    with pytest.raises(BadConfig):
        gguf_checkpoint(header)


def test_a_vocabulary_without_weights_is_named() -> None:
    assert why_no_text(Header({"general.architecture": "llama"}, ())) == (
        "it holds a vocabulary without weights"
    )


@pytest.mark.parametrize("family", ["llama", "qwen35", "gemma3n", "pangu-embedded-7b", "made-up"])
def test_models_that_write_and_unknown_families_are_left_to_llama_cpp(family: str) -> None:
    metadata = {"general.architecture": family, "general.type": "model", f"{family}.pooling_type": 0}
    assert why_no_text(Header(metadata, (TENSOR,))) is None
