"""Adapters of vLLM's engine, without vLLM."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.engine import NONE, Delta, Message, Warmer
from actors.engines.vllm_adapters import AdapterWriter, find_adapters, lora_arguments
from actors.engines.vllm_arguments import engine_arguments
from configs.errors import EngineUnavailable
from configs.schema import Sampling, VllmModel
from tests.unit.actors.engines.test_vllm import SHARE
from tests.unit.lora_folders import adapter

QUESTION: list[Message] = [{"role": "user", "content": "hi"}]


class Asked:
    """Notes what the engine is asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Sampling, str | None]] = []
        self.templates: list[Mapping[str, Any]] = []

    async def answer(
        self,
        messages: Sequence[Message],  # noqa: ARG002
        sampling: Sampling,
        streamed: bool,  # noqa: ARG002
        adapter: str | None,
    ) -> AsyncGenerator[Delta]:
        self.calls.append((sampling, adapter))
        yield Delta("x")

    async def token_ends(
        self, prompt: str | Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> list[int]:
        self.templates.append(template)
        return [len(prompt)]

    can_warm = True

    async def read(
        self, messages: Sequence[Message], template: Mapping[str, Any], adapter: str | None
    ) -> int:
        self.templates.append(template)
        assert adapter == "poet"
        return len(messages)


async def test_an_adapter_asks_its_engine_with_its_own_arguments_of_the_template() -> None:
    asked = Asked()
    writer = AdapterWriter(asked, "poet", {"x": 1, "y": 1})
    sampling = Sampling(reasoning_effort="low", template={"y": 2})
    assert [delta async for delta in writer.stream(QUESTION, sampling)] == [Delta("x")]
    ((sent, name),) = asked.calls
    assert name == "poet"
    assert sent.template_arguments == sampling.template_arguments | {"x": 1}
    await writer.token_ends(QUESTION, {"y": 3})
    assert asked.templates == [{"x": 1, "y": 3}]
    assert isinstance(writer, Warmer)
    assert (writer.can_warm, await writer.warm(QUESTION, {"y": 4})) == (True, 1)
    assert asked.templates[1:] == [{"x": 1, "y": 4}]


def settings(folders: dict[str, Path]) -> VllmModel:
    adapters = {name: {"weights": [{"path": str(folder)}]} for name, folder in folders.items()}
    return VllmModel.model_validate(
        {"engine": "vllm", "weights": [{"path": "m"}], "adapters": adapters}
    )


def test_vllm_gets_room_for_all_adapters_beside_what_they_change(tmp_path: Path) -> None:
    folders = {
        "poet": adapter(tmp_path / "a", rank=5),
        "coder": adapter(tmp_path / "b", ["o_proj"], rank=40),
    }
    found, lora = find_adapters("m", settings(folders))
    assert [(each.name, each.number, each.folder) for each in found] == [
        ("poet", 1, folders["poet"]),
        ("coder", 2, folders["coder"]),
    ]
    assert lora_arguments(lora, "gpu") == {
        "enable_lora": True,
        "max_loras": 2,
        "max_cpu_loras": 2,
        "max_lora_rank": 64,
        "lora_target_modules": ["k_proj", "o_proj", "q_proj", "v_proj"],
    }
    assert find_adapters("m", settings({})) == ([], None)
    assert lora_arguments(None, "gpu") == {}


def test_on_a_cpu_the_last_room_stays_empty_for_calls_of_the_model_itself(tmp_path: Path) -> None:
    _, lora = find_adapters("m", settings({"poet": adapter(tmp_path / "a")}))
    assert lora is not None
    assert lora_arguments(lora, "gpu")["max_loras"] == 1
    assert lora_arguments(lora, "cpu")["max_loras"] == lora_arguments(lora, "cpu")["max_cpu_loras"] == 2


def test_an_adapter_that_is_not_here_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="adapter 'poet' is not here"):
        find_adapters("m", settings({"poet": tmp_path}))


@pytest.mark.parametrize(
    ("written", "draft", "expected"),
    [
        (
            "ngram",
            None,
            {
                "method": "ngram",
                "num_speculative_tokens": 3,
                "prompt_lookup_min": 3,
                "prompt_lookup_max": 5,
            },
        ),
        ("mtp", None, {"method": "mtp", "num_speculative_tokens": 3}),
        (
            {"method": "draft", "draft": [{"path": "d"}], "tokens": 4},
            Path("/d"),
            {
                "method": "draft_model",
                "num_speculative_tokens": 4,
                "model": "/d",
                "draft_tensor_parallel_size": 1,
            },
        ),
        (
            {"method": "eagle3", "draft": [{"path": "d"}]},
            Path("/d"),
            {
                "method": "eagle3",
                "num_speculative_tokens": 3,
                "model": "/d",
                "draft_tensor_parallel_size": 1,
            },
        ),
    ],
    ids=str,
)
def test_speculation_in_vllms_words(written: Any, draft: Path | None, expected: Any) -> None:
    model = VllmModel.model_validate(
        {
            "engine": "vllm",
            "weights": [{"path": "m"}],
            "speculation": written,
            "concurrency": 30,
            "batch_tokens": 32,
        }
    )
    arguments = engine_arguments(Path("/m"), model, SHARE, "gpu", draft)
    assert arguments["speculative_config"] == expected
    step = 1 + expected["num_speculative_tokens"]
    assert arguments["max_num_batched_tokens"] == 30 * step
    sizes = arguments["compilation_config"]["cudagraph_capture_sizes"]
    assert sizes == [n * step for n in (1, 2, 4, 8, 16, 30)]
