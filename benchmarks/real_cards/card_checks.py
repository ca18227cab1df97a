"""Engines on one card, without Ray: memory, sleep, wake, speed, and what a kill leaves behind."""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil

from actors.engine import Message, Share
from benchmarks.real_cards.bench import Bench
from cluster.plan.footprint import footprint, gib
from cluster.plan.placement import PlacedReplica
from cluster.plan.task import read_checkpoints
from configs.schema import Sampling, VllmModel

QUESTION: list[Message] = [{"role": "user", "content": "Tell me a long story. " * 20}]
READY = "the engine is ready"
START_S = 600.0
ORPHAN_S = 5.0
HELD_BY_ENGINE = 1.02  # planned bytes may be passed by this: allocators round up
HOST_RESERVE = 8 << 30
LEFT = 256 << 20  # what our own process may have grown by

Found = tuple[Any, ...]  # what, planned, measured, good


def engine_of(bench: Bench, member: PlacedReplica) -> Any:
    """The engine of a planned member, not started."""
    from actors.engines.vllm import VllmEngine

    model = bench.recipe.models[member.model]
    assert isinstance(model, VllmModel)
    share = Share(
        threads=member.threads,
        utilization=member.utilization,
        kv_cache_memory_bytes=member.kv,
    )
    return VllmEngine(member.model, model, share)


async def check(bench: Bench) -> AsyncIterator[Found]:
    """The aggregator stays awake; the others start beside it one by one, sleep, and wake in turn."""
    members = {replica.model: replica for replica in bench.placement.replicas()}
    resident = members.pop(bench.recipe.aggregator.model)
    engines: dict[str, Any] = {resident.model: engine_of(bench, resident)}
    empty = await bench.meter.settled_bytes()  # with vLLM imported
    try:
        async for row in _start(bench, resident, engines[resident.model]):
            yield row
        alone = await _speed(bench, resident.model, engines)
        yield f"{resident.model}: tokens/s alone", "", f"{alone:.0f}", None
        for member in members.values():
            engines[member.model] = engine_of(bench, member)
            async for row in _start(bench, member, engines[member.model]):
                yield row
            async for row in _side_by_side(bench, engines, member.model, resident.model):
                yield row
            async for row in _sleep(bench, member, engines[member.model]):
                yield row
        for member in members.values():
            async for row in _wake(bench, member, engines[member.model]):
                yield row
            await engines[member.model].sleep()
    finally:
        for engine in engines.values():
            await engine.stop()
    left = await bench.meter.settled_bytes(empty) - empty
    yield "left when all have stopped", gib(0), gib(left), left < LEFT


async def _start(bench: Bench, member: PlacedReplica, engine: Any) -> AsyncIterator[Found]:
    before, began = await bench.meter.settled_bytes(), time.perf_counter()
    await engine.start()
    seconds = time.perf_counter() - began
    await _speed(
        bench, member.model, {member.model: engine}
    )  # what the first full step allocates belongs to it
    held = await bench.meter.settled_bytes() - before
    good = held <= member.awake * HELD_BY_ENGINE
    yield f"{member.model}: bytes awake", gib(member.awake), gib(held), good
    yield f"{member.model}: seconds to start", "", f"{seconds:.1f} s", None


async def _side_by_side(
    bench: Bench, engines: dict[str, Any], one: str, other: str
) -> AsyncIterator[Found]:
    alone = await _speed(bench, one, engines)
    yield f"{one}: tokens/s alone", "", f"{alone:.0f}", None
    both = await asyncio.gather(*[_speed(bench, name, engines) for name in (one, other)])
    yield f"{one} + {other}: tokens/s", "", " + ".join(f"{speed:.0f}" for speed in both), None


async def _sleep(bench: Bench, member: PlacedReplica, engine: Any) -> AsyncIterator[Found]:
    model = bench.recipe.models[member.model]
    needs = footprint(model, read_checkpoints(bench.recipe)[member.model], bench.card.kind)
    free = psutil.virtual_memory().available - HOST_RESERVE
    if needs.parked > free:
        raise RuntimeError(
            f"{member.model} needs {gib(needs.parked)} of host RAM, {gib(free)} are free"
        )
    awake, began = await bench.meter.settled_bytes(), time.perf_counter()
    await engine.sleep()
    seconds = time.perf_counter() - began
    back = awake - await bench.meter.settled_bytes()
    expected = needs.awake - needs.asleep
    good = back * HELD_BY_ENGINE >= needs.weights + needs.kv if needs.sleeps else None
    yield f"{member.model}: bytes that sleep gives back", gib(expected), gib(back), good
    yield f"{member.model}: seconds to fall asleep", "", f"{seconds:.2f} s", None


async def _wake(bench: Bench, member: PlacedReplica, engine: Any) -> AsyncIterator[Found]:
    asleep, began = await bench.meter.settled_bytes(), time.perf_counter()
    await engine.wake()
    seconds = time.perf_counter() - began
    held = await bench.meter.settled_bytes() - asleep
    planned = f"{member.weights / bench.card.link:.2f} s" if bench.card.link else ""
    yield f"{member.model}: seconds to wake", planned, f"{seconds:.2f} s", None
    rate = f"{member.weights / seconds / 1e9:.1f} GB/s"
    yield f"{member.model}: weights over the link", "", rate, None
    yield f"{member.model}: bytes taken again", "", gib(held), None


async def _speed(bench: Bench, name: str, engines: dict[str, Any]) -> float:
    """Tokens per second of as many answers at once as the engine takes."""

    async def answer(seed: int) -> int:
        sampling = Sampling(max_tokens=bench.answer_tokens, seed=seed)
        deltas = [delta async for delta in engines[name].stream(QUESTION, sampling)]
        return int(deltas[-1].completion_tokens)

    began = time.perf_counter()
    counts = await asyncio.gather(
        *[answer(seed) for seed in range(bench.recipe.models[name].concurrency)]
    )
    return sum(counts) / (time.perf_counter() - began)


async def check_orphans(bench: Bench) -> AsyncIterator[Found]:
    """Kill, without a chance to clean up, a process that holds an engine: its children must go."""
    member = bench.placement.replicas(bench.recipe.aggregator.model)[0]
    empty = await bench.meter.settled_bytes()
    model = bench.recipe.models[member.model]
    command = [sys.executable, "-m", "benchmarks.real_cards.card_checks", model.model_dump_json()]
    command += [str(member.threads), str(member.utilization), str(member.kv)]
    children, alive, seconds = await asyncio.to_thread(_kill_holder, command)
    yield f"of {children} children alive 5 s after the kill", "0", str(alive), not alive
    yield "seconds until they were gone", f"{ORPHAN_S:.0f} s", f"{seconds:.2f} s", not alive
    left = await bench.meter.settled_bytes(empty) - empty
    yield "bytes left after the kill", gib(0), gib(left), left < LEFT


def _kill_holder(command: list[str]) -> tuple[int, int, float]:
    """Start it, kill it once its engine is up: its children, those left of them, and the seconds."""
    # Its output must not be a pipe: a child that lives on would keep it open, and us waiting.
    with tempfile.NamedTemporaryFile() as said, subprocess.Popen(command, stdout=said) as holder:
        deadline = time.monotonic() + START_S
        while READY not in Path(said.name).read_text("utf-8"):
            if holder.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the process that should hold an engine did not start it")
            time.sleep(0.5)
        children = psutil.Process(holder.pid).children(recursive=True)
        began = time.perf_counter()
        holder.kill()
        _, alive = psutil.wait_procs(children, ORPHAN_S)
        return len(children), len(alive), time.perf_counter() - began


async def _hold(model: VllmModel, share: list[str]) -> None:
    from actors.engines.vllm import VllmEngine

    threads, utilization, kv = int(share[0]), float(share[1]), int(share[2])
    planned = Share(threads=threads, utilization=utilization, kv_cache_memory_bytes=kv)
    engine = VllmEngine("held", model, planned)
    await engine.start()
    print(READY, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_hold(VllmModel.model_validate_json(sys.argv[1]), sys.argv[2:]))
