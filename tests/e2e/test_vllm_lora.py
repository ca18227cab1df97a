"""Two LoRA adapters over one model of vLLM, on this CPU: alone, and in a mixture in Ray Serve.

The plan's bytes are held against those of the processes, beside a recipe of two whole models.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from actors.engine import Delta, Message, Share, merge
from cluster.cards.card import GIB, MIB, Card
from cluster.plan.planner import plan
from cluster.plan.task import planning_task
from configs.errors import UnknownModel
from configs.schema import Recipe, Sampling, VllmModel
from tests.conftest import Endpoint, Serving
from tests.e2e import processes, vllm_folders

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: see docs/vllm.md"),
]

BASE = "smollm2-135m"
SKY: list[Message] = [{"role": "user", "content": "Why is the sky blue? Answer in two sentences."}]
BEGINNING = 24
"""Characters of an answer in which the model and its two adapters differ."""
BEGUN = ("The", "The sky", "It is blue because", "Sunlight")
"""Beginnings of answers. After each the model and its adapters expect different words."""
Numbers = dict[tuple[str, str], float]
"""Log-probability of a token after a beginning."""
CPU = Card("cpu", 16 * GIB, cores=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of two adapters, whose numbers and ranks differ."""
    source, target = vllm_folders.checkpoint(BASE), tmp_path_factory.mktemp("adapters")
    return {
        "poet": vllm_folders.adapter(source, target / "poet", seed=1),
        "coder": vllm_folders.adapter(source, target / "coder", seed=2, rank=4),
    }


def model(folders: dict[str, Path], base: Path | None = None) -> VllmModel:
    """The model with these adapters.

    Args:
        folders: the adapters' folders by their names.
        base: the model's checkpoint; None for the one in bf16.
    """
    return VllmModel.model_validate(
        {
            "engine": "vllm",
            "weights": [{"path": str(base or vllm_folders.checkpoint(BASE))}],
            "dtype": "bfloat16",
            "context_tokens": 1024,
            "eager": True,
            "adapters": {n: {"weights": [{"path": str(f)}]} for n, f in folders.items()},
        }
    )


def mixture(models: dict[str, Any], proposers: list[str]) -> Recipe:
    sampling = {"temperature": 0, "max_tokens": 32}
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": models,
            "layers": [{"proposers": [{"model": n, "sampling": sampling} for n in proposers]}],
            "aggregator": {"model": proposers[-1], "sampling": sampling},
        }
    )


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def engine(folders: dict[str, Path]) -> AsyncIterator[Any]:
    """The engine, which has stopped before Ray starts: `stop` ends all processes that came later."""
    from actors.engines.vllm import create

    os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"  # lets a test ask with a function
    engine = create(BASE, model(folders), Share(threads=2))
    await engine.start()
    yield engine
    await engine.stop()
    del os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"]


def reserved_for_adapters(worker: Any) -> int:
    """Bytes of the tensors that vLLM has put beside the matrices of the model."""
    parts = (
        part
        for module in worker.model_runner.model.modules()
        for name in ("lora_a_stacked", "lora_b_stacked")
        for part in getattr(module, name, ())
    )
    return sum(part.numel() * part.element_size() for part in parts)


async def numbers(writer: Any) -> Numbers:
    """Log-probabilities of the likeliest first tokens after each of BEGUN."""

    async def after(begun: str) -> Numbers:
        messages = [*SKY, Message(role="assistant", content=begun)]
        settings = Sampling(max_tokens=1, temperature=0, top_logprobs=5)
        (token,) = merge([delta async for delta in writer.stream(messages, settings)]).logprobs
        return {(begun, top["token"]): top["logprob"] for top in token["top_logprobs"]}

    found: Numbers = {}
    for each in await asyncio.gather(*map(after, BEGUN)):
        found |= each
    return found


def distance(one: Numbers, other: Numbers) -> float:
    """The mean difference of the log-probabilities that both have."""
    both = one.keys() & other.keys()
    return sum(abs(one[key] - other[key]) for key in both) / len(both)


async def text(writer: Any, **sampling: Any) -> str:
    settings = Sampling(**({"max_tokens": 24, "temperature": 0} | sampling))
    whole: Delta = merge([delta async for delta in writer.stream(SKY, settings)])
    assert whole.prompt_tokens == len(await writer.token_ends(SKY))
    return whole.text


@pytest.mark.asyncio(loop_scope="class")
class TestAdapters:
    async def test_each_adapter_writes_a_text_of_its_own_and_the_model_its_old_one(
        self, engine: Any
    ) -> None:
        writers = {BASE: engine, "poet": engine.with_adapter("poet")}
        writers["coder"] = engine.with_adapter("coder")
        alone = {name: await text(writer) for name, writer in writers.items()}
        print(json.dumps(alone, indent=1))
        assert len({t[:BEGINNING] for t in alone.values()}) == 3
        assert {name: await text(writer) for name, writer in writers.items()} == alone
        found = await asyncio.gather(*(text(writer) for writer in writers.values()))
        together = dict(zip(writers, found, strict=True))
        print(json.dumps(together, indent=1))
        # In a larger batch numbers are rounded differently, so that later words may differ.
        assert {n: t[:BEGINNING] for n, t in together.items()} == {
            n: t[:BEGINNING] for n, t in alone.items()
        }

    @pytest.mark.parametrize("order", [(BASE, "poet", "coder"), ("coder", BASE, "poet")])
    async def test_in_one_batch_each_has_its_own_numbers(
        self, engine: Any, order: tuple[str, ...]
    ) -> None:
        """vLLM 0.32 would take the last adapter for the model itself (`cluster/plan/lora.py`)."""
        writers = {name: engine if name == BASE else engine.with_adapter(name) for name in order}
        alone = {name: await numbers(writer) for name, writer in writers.items()}
        found = await asyncio.gather(*(numbers(writer) for writer in writers.values()))
        for name, together in zip(order, found, strict=True):
            distances = {other: round(distance(together, alone[other]), 3) for other in order}
            print(f"{name} in a batch, from each alone: {distances}")
            own = distances.pop(name)
            assert own < min(distances.values()) / 4

    async def test_a_name_that_is_no_adapter_is_refused(self, engine: Any) -> None:
        with pytest.raises(UnknownModel, match="no adapter 'painter'"):
            engine.with_adapter("painter")

    async def test_what_vllm_reserves_is_what_is_planned(
        self, engine: Any, folders: dict[str, Path]
    ) -> None:
        """The tensors of the engine, by their shapes, as its own process tells them."""
        from cluster.plan.lora import joined, read_adapter

        (found,) = await engine._runner.llm.collective_rpc(reserved_for_adapters)
        planned = joined([read_adapter(folder) for folder in folders.values()]).on("cpu")
        print(f"reserved {found} bytes, planned {planned.reserved_bytes}")
        assert found == planned.reserved_bytes

    async def test_after_sleep_the_adapters_write_the_same(self, engine: Any) -> None:
        writer = engine.with_adapter("poet")
        before = await text(writer)
        await engine.sleep()
        await engine.wake()
        assert await text(writer) == before


async def test_over_four_bit_weights_each_adapter_has_its_own_numbers_too(
    folders: dict[str, Path],
) -> None:
    from actors.engines.vllm import create

    engine = create(BASE, model(folders, vllm_folders.four_bits(BASE)), Share(threads=2))
    await engine.start()
    try:
        writers = {BASE: engine, **{name: engine.with_adapter(name) for name in folders}}
        alone = {name: await numbers(writer) for name, writer in writers.items()}
        found = await asyncio.gather(*(numbers(writer) for writer in writers.values()))
        for name, together in zip(writers, found, strict=True):
            distances = {other: round(distance(together, alone[other]), 3) for other in writers}
            print(f"{name} in a batch, from each alone: {distances}")
            own = distances.pop(name)
            assert own < min(distances.values()) / 4
    finally:
        await engine.stop()


MEASURED: dict[str, float] = {}
"""Bytes of the processes of the models of each mixture that was served."""


def whole() -> Recipe:
    """Two whole models in place of two adapters."""
    models = {name: model({}).model_dump(mode="json") for name in ("one", "two")}
    return mixture(models, ["one", "two"])


def planned_bytes(recipe: Recipe) -> int:
    placed = plan(planning_task(recipe, [CPU]))
    return sum(member.awake for slot in placed.cards[0].slots for member in slot.members)


def measured_bytes(*models: str) -> int:
    """Bytes of RAM that the processes of these models share with no other process."""
    import psutil

    found = 0
    for name in models:
        (pid,) = processes.replicas(f"model-{name}")
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        found += sum(process.memory_full_info().uss for process in tree)
    return found


@pytest.fixture(scope="class")
def endpoint(folders: dict[str, Path], serving: Serving) -> Iterator[Endpoint]:
    models = {BASE: model(folders).model_dump(mode="json")}
    with serving(mixture(models, ["poet", "coder", BASE])) as served:
        yield served


class TestMixture:
    def test_two_adapters_propose_and_their_model_answers_in_one_engine(
        self, endpoint: Endpoint
    ) -> None:
        names = {each.id for each in endpoint.client().models.list()}
        assert names == {"mix", BASE, "poet", "coder"}
        answer = endpoint.client().chat.completions.create(
            model="mix", messages=SKY, seed=1, extra_body={"moa": {"events": True}}
        )
        proposals = {p["model"]: p["text"] for p in answer.moa["proposals"]}
        print(json.dumps(proposals, indent=1), answer.choices[0].message.content)
        assert proposals.keys() == {"poet", "coder", BASE}
        assert len({text[:BEGINNING] for text in proposals.values()}) == 3
        assert answer.moa["degraded"] is False
        for name, proposal in proposals.items():
            alone = endpoint.client().chat.completions.create(
                model=name, messages=SKY, temperature=0, max_tokens=32
            )
            assert alone.choices[0].message.content[:BEGINNING] == proposal[:BEGINNING]
        (pid,) = processes.replicas(f"model-{BASE}")
        cores = [title for title in processes.below(pid).values() if "EngineCore" in title]
        assert len(cores) == 1
        assert processes.replicas("model-poet") == []
        MEASURED["adapters"] = measured_bytes(BASE)

    def test_the_plan_is_that_of_one_model(self, endpoint: Endpoint) -> None:
        planned = planned_bytes(endpoint.recipe)
        print(f"\nadapters: planned {planned / MIB:.0f}, measured {MEASURED['adapters'] / MIB:.0f} MiB")
        assert 0.5 * planned < MEASURED["adapters"] < planned
        assert planned < 0.6 * planned_bytes(whole())


def test_two_whole_models_take_nearly_twice_the_bytes(serving: Serving) -> None:
    with serving(whole()) as served:
        served.client().chat.completions.create(model="mix", messages=SKY, seed=1)
        measured, planned = measured_bytes("one", "two"), planned_bytes(served.recipe)
    print(f"\ntwo whole models: planned {planned / MIB:.0f}, measured {measured / MIB:.0f} MiB")
    assert 0.5 * planned < measured < planned
    assert MEASURED["adapters"] < 0.7 * measured
