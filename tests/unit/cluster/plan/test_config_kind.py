"""Folders of models that write no text, as their config.json tells."""

import json
from pathlib import Path

import pytest

from cluster.plan.checkpoint import UnknownCheckpoint, from_folder
from cluster.plan.config_kind import POOLING, why_no_chat
from tests.unit.fake_hub import CONFIG, checkpoint


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("BertModel", "it is a model of embeddings (BertModel), and writes no text"),
        ("XLMRobertaModel", "model of embeddings"),
        ("NomicBertModel", "model of embeddings"),
        ("Qwen2Model", "model of embeddings"),
        ("MistralModel", "model of embeddings"),
        ("LlamaBidirectionalModel", "model of embeddings"),
        ("T5EncoderModel", "model of embeddings"),
        ("CLIPModel", "model of embeddings"),
        ("XLMRobertaForSequenceClassification", "it is a reranker or tells classes"),
        ("Qwen3ForSequenceClassification", "it is a reranker or tells classes"),
        ("JinaForRanking", "it is a reranker"),
        ("BertForTokenClassification", "it is a reranker or tells classes"),
        ("Qwen2ForRewardModel", "it is a reward model"),
        ("ModernBertForMaskedLM", "it fills gaps"),
    ],
)
def test_what_writes_no_text_is_named(architecture: str, words: str) -> None:
    assert words in (why_no_chat({"architectures": [architecture]}) or "")


@pytest.mark.parametrize(
    "architecture",
    [
        "LlamaForCausalLM",
        "GPT2LMHeadModel",
        "QWenLMHeadModel",
        "ChatGLMModel",
        "InternVLChatModel",
        "Gemma3ForConditionalGeneration",
        "MiniCPMV",
        "DeciLMForCausalLM",
        "SomethingNew",
    ],
)
def test_what_writes_text_or_is_unknown_is_left_alone(architecture: str) -> None:
    assert why_no_chat({"architectures": [architecture]}) is None


@pytest.mark.parametrize("config", [{}, {"architectures": None}, {"architectures": [7]}, [], None])
def test_a_config_without_a_class_is_left_alone(config: object) -> None:
    assert why_no_chat(config) is None


def test_a_folder_of_sentence_transformers_is_one_of_embeddings(tmp_path: Path) -> None:
    for name, content in checkpoint().items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"architectures": ["Qwen3ForCausalLM"]}))
    assert from_folder(tmp_path).layers == 2
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "x"}, {"type": POOLING}]))
    with pytest.raises(UnknownCheckpoint, match=r"model of embeddings \(modules.json has a pool"):
        from_folder(tmp_path)
