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
"""Characters of an answer in which three adapters differ."""
CPU = Card("cpu", 16 * GIB, cores=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of two adapters, whose numbers and ranks differ."""
    source, target = vllm_folders.checkpoint(BASE), tmp_path_factory.mktemp("adapters")
    return {
        "poet": vllm_folders.adapter(source, target / "poet", seed=1),
        "coder": vllm_folders.adapter(source, target / "coder", seed=2, rank=4),
    }


def model(folders: dict[str, Path]) -> VllmModel:
    """The model with these adapters."""
    return VllmModel.model_validate(
        {
            "engine": "vllm",
            "weights": [{"path": str(vllm_folders.checkpoint(BASE))}],
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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(folders: dict[str, Path]) -> AsyncIterator[Any]:
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


async def text(writer: Any, **sampling: Any) -> str:
    settings = Sampling(**({"max_tokens": 24, "temperature": 0} | sampling))
    whole: Delta = merge([delta async for delta in writer.stream(SKY, settings)])
    assert whole.prompt_tokens == len(await writer.token_ends(SKY))
    return whole.text


@pytest.mark.asyncio(loop_scope="module")
class TestAdapters:
    async def test_each_adapter_writes_a_text_of_its_own_and_the_model_its_old_one(
        self, engine: Any
    ) -> None:
        writers = {BASE: engine, "poet": engine.with_adapter("poet")}
        writers["coder"] = engine.with_adapter("coder")
        alone = {name: await text(writer) for name, writer in writers.items()}
        print(json.dumps(alone, indent=1))
        assert len(set(alone.values())) == 3
        found = await asyncio.gather(*(text(writer) for writer in writers.values()))
        together = dict(zip(writers, found, strict=True))
        print(json.dumps(together, indent=1))
        # In one batch numbers are rounded differently, so that later words may differ.
        assert {n: t[:BEGINNING] for n, t in together.items()} == {
            n: t[:BEGINNING] for n, t in alone.items()
        }
        assert len({t[:BEGINNING] for t in alone.values()}) == 3

    async def test_a_name_that_is_no_adapter_is_refused(self, engine: Any) -> None:
        with pytest.raises(UnknownModel, match="no adapter 'painter'"):
            engine.with_adapter("painter")

    async def test_what_vllm_reserves_is_what_is_planned(
        self, engine: Any, folders: dict[str, Path]
    ) -> None:
        """The tensors of the engine, by their shapes, as its own process tells them."""
        from cluster.plan.lora import joined, read_adapter

        (found,) = await engine._llm.collective_rpc(reserved_for_adapters)
        planned = joined([read_adapter(folder) for folder in folders.values()])
        print(f"reserved {found} bytes, planned {planned.reserved_bytes}")
        assert found == planned.reserved_bytes

    async def test_after_sleep_the_adapters_write_the_same(self, engine: Any) -> None:
        writer = engine.with_adapter("poet")
        before = await text(writer)
        await engine.sleep()
        await engine.wake()
        assert await text(writer) == before


@pytest.fixture(scope="module")
def endpoint(folders: dict[str, Path], serving: Serving) -> Iterator[Endpoint]:
    models = {BASE: model(folders).model_dump(mode="json")}
    with serving(mixture(models, ["poet", "coder", BASE])) as served:
        yield served


def test_two_adapters_propose_and_their_model_answers_in_one_engine(endpoint: Endpoint) -> None:
    names = {each.id for each in endpoint.client().models.list()}
    assert names == {"mix", BASE, "poet", "coder"}
    answer = endpoint.client().chat.completions.create(
        model="mix", messages=SKY, seed=1, extra_body={"moa": {"events": True}}
    )
    proposals = {p["model"]: p["text"] for p in answer.moa["proposals"]}
    assert proposals.keys() == {"poet", "coder", BASE}
    assert len(set(proposals.values())) == 3
    assert answer.moa["degraded"] is False
    for name, proposal in proposals.items():
        alone = endpoint.client().chat.completions.create(
            model=name, messages=SKY, temperature=0, max_tokens=32
        )
        assert alone.choices[0].message.content == proposal
    (pid,) = processes.replicas(f"model-{BASE}")
    cores = [title for title in processes.below(pid).values() if "EngineCore" in title]
    assert len(cores) == 1
    assert processes.replicas("model-poet") == []


def test_the_plan_of_adapters_is_that_of_one_model_and_measured(endpoint: Endpoint) -> None:
    import psutil

    (pid,) = processes.replicas(f"model-{BASE}")
    tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    measured = sum(process.memory_full_info().uss for process in tree)
    ours = plan(planning_task(endpoint.recipe, [CPU]))
    (replica,) = [m for slot in ours.cards[0].slots for m in slot.members]
    whole = mixture(
        {name: model({}).model_dump(mode="json") for name in ("one", "two")}, ["one", "two"]
    )
    theirs = plan(planning_task(whole, [CPU]))
    two = sum(m.awake for slot in theirs.cards[0].slots for m in slot.members)
    print(
        f"\nplanned with two adapters {replica.awake / MIB:.0f} MiB, measured {measured / MIB:.0f} "
        f"MiB; two whole models: planned {two / MIB:.0f} MiB"
    )
    assert 0.5 * replica.awake < measured < replica.awake
    assert replica.awake < 0.6 * two
