"""Two real vLLM engines on this CPU, with weights really quantized to 4 bits, in Ray Serve.

Needs vLLM (docs/vllm.md) and makes the checkpoints of `vllm_cpu.yaml` if they are not there yet.
The contract that all engines keep is tests/unit/actors/engines/test_contract.py; here is the rest.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from actors.engine import Delta, Message, Share
from cluster import ray_runtime
from configs.errors import ContextTooLong, EngineUnavailable
from configs.load import load
from configs.schema import Recipe, Sampling, VllmModel
from tests.conftest import Endpoint, Serving
from tests.e2e import processes, vllm_folders

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),  # the first test makes the checkpoints: three minutes on 2 free cores
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: see docs/vllm.md"),
]

KERNEL = "Using CPUWNA16LinearKernel for CompressedTensorsWNA16"
SKY: list[Message] = [{"role": "user", "content": "Why is the sky blue? Answer in two sentences."}]
CONTEXT_TOKENS = 512


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """The preset, with its checkpoints made."""
    recipe = load("vllm_cpu")
    for name in recipe.models:
        vllm_folders.four_bits(name)
    return recipe


@pytest.mark.parametrize("name", ["smollm2-135m", "qwen2.5-coder-0.5b"])
def test_the_checkpoint_holds_four_bits_per_weight_of_every_layer(recipe: Recipe, name: str) -> None:
    from safetensors import safe_open

    folder = Path(recipe.models[name].weights[0].path)  # type: ignore[union-attr]
    scheme = json.loads((folder / "config.json").read_text())["quantization_config"]
    weights = scheme["config_groups"]["group_0"]["weights"]
    assert (scheme["format"], weights["num_bits"], weights["type"]) == ("pack-quantized", 4, "int")
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = set(file.keys())
        linears = {n.removesuffix("_packed") for n in names if n.endswith("_packed")}
        assert len(linears) % 7 == 0  # q, k, v, o, gate, up and down of each layer
        assert not linears & names
        for linear in linears:
            rows, columns = file.get_tensor(f"{linear}_shape").tolist()
            assert file.get_slice(f"{linear}_packed").get_shape() == [rows, columns // 8]
            groups = columns // weights["group_size"]
            assert file.get_slice(f"{linear}_scale").get_shape() == [rows, groups]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(recipe: Recipe) -> AsyncIterator[Any]:
    from actors.engines.vllm import create

    model = recipe.models["smollm2-135m"].model_copy(update={"context_tokens": CONTEXT_TOKENS})
    assert isinstance(model, VllmModel)
    engine = create("smollm", model, Share(threads=2))
    await engine.start()
    yield engine
    await engine.stop()


async def answer(engine: Any, **sampling: Any) -> list[Delta]:
    settings = {"max_tokens": 8, "temperature": 0} | sampling
    return [delta async for delta in engine.stream(SKY, Sampling(**settings))]


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


@pytest.mark.asyncio(loop_scope="module")
class TestEngine:
    async def test_it_streams_and_counts_as_its_template_does(self, engine: Any) -> None:
        deltas = await answer(engine)
        assert len(deltas) > 2
        assert deltas[-1].completion_tokens == 8
        assert deltas[-1].prompt_tokens == len(await engine.token_ends(SKY))
        assert [d.finish_reason for d in deltas if d.finish_reason] == ["length"]

    async def test_a_stop_text_is_not_part_of_the_answer(self, engine: Any) -> None:
        whole = text(await answer(engine, max_tokens=24))
        stop = whole[10:13]
        deltas = await answer(engine, max_tokens=24, stop=(stop,))
        assert text(deltas) == whole.split(stop)[0]
        assert deltas[-1].finish_reason == "stop"

    async def test_logprobs_are_one_per_token(self, engine: Any) -> None:
        deltas = await answer(engine, top_logprobs=2)
        tokens = [token for delta in deltas for token in delta.logprobs]
        assert len(tokens) == 8
        assert b"".join(bytes(token["bytes"]) for token in tokens).decode() == text(deltas)
        assert all(
            token["logprob"] == token["top_logprobs"][0]["logprob"] for token in tokens
        )  # greedy

    async def test_the_end_of_the_turn_has_no_logprobs(self, engine: Any) -> None:
        deltas = await answer(engine, max_tokens=64, top_logprobs=0)
        assert deltas[-1].finish_reason == "stop"
        tokens = [token for delta in deltas for token in delta.logprobs]
        assert b"".join(bytes(token["bytes"]) for token in tokens).decode() == text(deltas)

    async def test_closing_ends_the_work_in_the_engine_within_a_second(self, engine: Any) -> None:
        async with aclosing(engine.stream(SKY, Sampling(max_tokens=400))) as deltas:
            await anext(deltas)
            assert engine._runner.llm.get_num_unfinished_requests() == 1
        async with asyncio.timeout(1):
            while engine._runner.llm.get_num_unfinished_requests():  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.01)

    async def test_a_conversation_that_does_not_fit_is_refused(self, engine: Any) -> None:
        long: list[Message] = [{"role": "user", "content": "word " * 2 * CONTEXT_TOKENS}]
        with pytest.raises(ContextTooLong, match=str(CONTEXT_TOKENS)):
            await anext(engine.stream(long, Sampling()))
        assert len(await engine.token_ends(long)) > 2 * CONTEXT_TOKENS  # but it can be counted

    @pytest.mark.parametrize(
        "sample", ["", " two\n\nlines ", "你好世界", "👩‍👩‍👧‍👦🎉 family", "<|im_end|>"]
    )
    async def test_cutting_a_text_at_an_end_leaves_so_many_tokens(
        self, engine: Any, sample: str
    ) -> None:
        ends = await engine.token_ends(sample)
        assert ends[-1:] == ([len(sample)] if sample else [])
        for n, end in enumerate(ends, 1):
            assert len(await engine.token_ends(sample[:end])) <= n

    async def test_seeded_answers_to_more_tokens_than_one_step_takes(self, engine: Any) -> None:
        long: list[Message] = [{"role": "user", "content": "Why? " * 180}]  # vLLM died of these

        async def ask(seed: int) -> list[Delta]:
            sampling = Sampling(max_tokens=8, seed=seed, temperature=1)
            return [delta async for delta in engine.stream(long, sampling)]

        answers = await asyncio.gather(*[ask(seed) for seed in (1, 2, 3, 1)])
        assert [deltas[-1].completion_tokens for deltas in answers] == [8] * 4
        assert text(answers[0]) == text(answers[3]) != text(answers[1])

    async def test_a_call_while_it_sleeps_is_answered_after_it_wakes(self, engine: Any) -> None:
        before = text(await answer(engine))
        running = asyncio.create_task(answer(engine, max_tokens=64))
        await engine.sleep()  # after what runs, whether that has begun or not
        late = asyncio.create_task(answer(engine))
        done, _ = await asyncio.wait([late], timeout=0.5)
        assert not done
        await engine.wake()
        assert text(await late) == before
        assert (await running)[-1].completion_tokens

    async def test_a_killed_engine_process_makes_it_unavailable_until_it_starts_again(
        self, engine: Any
    ) -> None:
        import psutil  # comes with vLLM

        before = text(await answer(engine))
        running = asyncio.create_task(answer(engine, max_tokens=400))
        async with asyncio.timeout(10):
            while not engine._runner.llm.get_num_unfinished_requests():  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.01)
        children = psutil.Process().children(recursive=True)
        (core,) = [child for child in children if "EngineCore" in child.name()]
        core.kill()
        with pytest.raises(EngineUnavailable):
            await asyncio.wait_for(running, 5)
        with pytest.raises(EngineUnavailable):
            await engine.check_health()
        await engine.stop()
        assert psutil.wait_procs([core], timeout=5)[1] == []
        await engine.start()
        await engine.check_health()
        assert text(await answer(engine)) == before

    async def test_stopping_ends_the_calls_at_work(self, engine: Any) -> None:
        running = asyncio.create_task(answer(engine, max_tokens=400, temperature=1))
        async with asyncio.timeout(10):
            while not engine._runner.llm.get_num_unfinished_requests():  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.01)
        await engine.stop()
        with pytest.raises(EngineUnavailable, match="stopped"):
            await asyncio.wait_for(running, 1)
        with pytest.raises(EngineUnavailable, match="stopped"):
            await engine.check_health()


@pytest.fixture(scope="module")
def endpoint(recipe: Recipe, serving: Serving) -> Iterator[Endpoint]:
    with serving(recipe) as served:
        yield served


def test_two_quantized_models_propose_and_one_answers(endpoint: Endpoint) -> None:
    answer = endpoint.client().chat.completions.create(
        model="slimmoa-vllm-cpu", messages=SKY, seed=1, extra_body={"moa": {"events": True}}
    )
    assert len(answer.choices[0].message.content.split()) > 5
    assert answer.moa["degraded"] is False
    proposals = {p["model"]: p["text"] for p in answer.moa["proposals"]}
    assert proposals.keys() == endpoint.recipe.models.keys()
    assert len(set(proposals.values())) == 2
    rows = {(row["model"], row["role"]): row for row in answer.usage.by_model}
    proposed = sum(row["completion_tokens"] for (_, role), row in rows.items() if role == "proposer")
    assert rows["qwen2.5-coder-0.5b", "aggregator"]["prompt_tokens"] > proposed  # it read them
    print(f"\n{json.dumps(proposals, indent=1)}\nanswer: {answer.choices[0].message.content}")


def test_both_models_ran_on_the_four_bit_kernel(endpoint: Endpoint) -> None:
    files = ray_runtime.log_folder().glob("worker-*.*")
    logs = [file.read_text(errors="replace") for file in files]
    assert sum(KERNEL in log for log in logs) == len(endpoint.recipe.models)


def test_a_killed_replica_takes_its_engine_with_it_and_answers_again(endpoint: Endpoint) -> None:
    killed, other = "smollm2-135m", "qwen2.5-coder-0.5b"

    def answers(model: str) -> bool:
        try:
            return bool(
                endpoint.client()
                .chat.completions.create(model=model, messages=SKY, max_tokens=4)
                .choices
            )
        except openai.APIStatusError:
            return False

    assert answers(killed)
    processes.until(lambda: len(processes.replicas(f"model-{killed}")) == 1)
    (pid,) = processes.replicas(f"model-{killed}")
    assert any("EngineCore" in title for title in processes.below(pid).values())
    processes.kill(pid)  # and see that its engine has gone too
    assert answers(other)
    processes.until(lambda: answers(killed), within_s=120)
