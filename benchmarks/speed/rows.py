"""Many rows through the store and the turns, in one process, with engines that cost next to nothing.

    python -m benchmarks.speed.rows [--rows 100000] [--json FILE]

The parts are those of a real run, without Ray: `generate` with a bounded window of rows, the calls over
the store, three replicas that take turns in one slot under a keeper, and scripted engines that write
without delay. Figures are per block of a tenth of the rows. Rows end in waves, a window at a time, so a
block's work is counted in its calls, of which a row takes three. The set is longer than what is
measured by a window of rows, so that the window is as full in the last block as in the first.

On a shared machine a second of CPU does less while the neighbours work, so what a row costs at the end
is the mean of the last three blocks, against that of the first three.
"""

import asyncio
import random
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer

from actors.engine import NONE, Delta, Message, Share
from actors.engines.scripted import WORDS
from actors.keeper.card_keeper import CardKeeper
from actors.keeper.registration import Assignment
from actors.replica import Replica
from benchmarks.shared.harness import Limit, report, run
from cluster.residency.messages import BRINGS_BACK
from cluster.residency.state import Member, Slot
from configs.schema import Recipe, Sampling
from jobs.generate import GenerateProgress, GenerateTask, generate
from jobs.identity import model_identity, to_generator
from jobs.records import Row
from jobs.store import Store
from jobs.stored_calls import StoredCalls
from jobs.variants import mixture

BLOCKS = 10
CPU_LIMIT, MEMORY_LIMIT = 1.05, 1.1
IN_FLIGHT = 1024
CONCURRENCY = 64
ANSWER_TOKENS = 100
PROMPT_WORDS = 40
CALLS_PER_ROW = 3
COMPARED = 3  # blocks at either end

Orders = Mapping[tuple[str, str], int]


def recipe() -> Recipe:
    """Two proposers and an aggregator, all scripted, without delays."""
    model = {"engine": "scripted", "tokens": ANSWER_TOKENS, "first_token_s": 0, "token_s": 0}
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": {name: model | {"concurrency": CONCURRENCY} for name in ("a", "b", "writer")},
            "layers": [{"proposers": [{"model": "a"}, {"model": "b"}]}],
            "aggregator": {"model": "writer"},
        }
    )


def synthetic_rows(count: int) -> Iterator[Row]:
    """Prompts that are all different."""
    for index in range(count):
        words = random.Random(index).choices(WORDS, k=PROMPT_WORDS)
        yield Row(index, (f"Question {index}: {' '.join(words)}?",))


class Replicas:
    """`mixture.models.Models` over replicas in this process. No call ends another model's turn."""

    def __init__(self, replicas: Mapping[str, Replica]) -> None:
        self._replicas = replicas

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        return await self._replicas[model].complete(messages, sampling, inf)

    def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, _streamed: bool = True
    ) -> AsyncIterator[Delta]:
        return self._replicas[model].stream(messages, sampling)

    async def count_tokens(
        self, model: str, messages: Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> int:
        return await self._replicas[model].count_tokens(messages, template)

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:
        return await self._replicas[model].token_ends(texts)

    async def is_alive(self, _model: str) -> bool:
        return True


@asynccontextmanager
async def one_slot(of: Recipe, queue: int) -> AsyncIterator[tuple[Replicas, CardKeeper]]:
    """The recipe's models, in turns in one slot of a card. queue: calls that may wait for each."""

    async def alive(_: Any) -> bool:
        return True

    async def kill(name: str) -> None:
        raise RuntimeError(f"replica {name!r} is to be killed, and nothing failed")

    members = tuple(Member(name, order) for order, name in enumerate(of.models))
    keeper = CardKeeper([Slot("slot", members)], None, alive, kill)
    replicas = {
        name: Replica(name, model, queue, Assignment(name, keeper, Share(), inf), name)
        for name, model in of.models.items()
    }
    try:
        await asyncio.gather(*(replica.start() for replica in replicas.values()))
        yield Replicas(replicas), keeper
    finally:
        for replica in replicas.values():
            await replica.stop()


@dataclass(frozen=True, slots=True)
class Sample:
    """How things stood when so many rows were answered.

    work: calls made, in rows' worth; wall_s: of a clock; peak_bytes: most resident memory
    until then, as Linux counts it.
    """

    rows: int
    work: float
    wall_s: float
    cpu_s: float
    peak_bytes: int
    database_bytes: int
    swaps: int

    @classmethod
    def taken(cls, rows: int, calls: StoredCalls, orders: Orders, folder: Path) -> "Sample":
        return cls(
            rows,
            calls.counts.made / CALLS_PER_ROW,
            time.monotonic(),
            time.process_time(),
            1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            sum(file.stat().st_size for file in folder.iterdir()),
            sum(count for (_, verb), count in orders.items() if verb in BRINGS_BACK),
        )


async def measured(rows: int, in_flight: int, folder: Path) -> list[Sample]:
    """Answer a set of `rows` and a window more; a sample at the start and after each block."""
    mix = recipe()
    identities = {name: model_identity(model) for name, model in mix.models.items()}
    block = rows // BLOCKS
    reached = asyncio.Queue[int]()

    def on_answer(so_far: GenerateProgress) -> None:
        if (done := so_far.answered + so_far.failed) % block == 0:
            reached.put_nowait(done)

    with Store.open(folder) as store:
        store.add_rows(synthetic_rows(rows + in_flight))
        variant = mixture(mix)
        store.add_generator(to_generator(variant, identities, 0))
        async with (
            one_slot(mix, in_flight) as (models, keeper),
            StoredCalls(store, models, identities, dict.fromkeys(mix.models, in_flight)) as calls,
            asyncio.TaskGroup() as group,
        ):
            samples = [Sample.taken(0, calls, await keeper.order_counts(), folder)]
            task = GenerateTask([variant], in_flight=in_flight)
            answering = group.create_task(generate(task, store, calls, on_answer))
            for _ in range(BLOCKS):
                done = await reached.get()
                samples.append(Sample.taken(done, calls, await keeper.order_counts(), folder))
            end = await answering
    if end.answered != rows + in_flight or calls.counts.made != CALLS_PER_ROW * end.answered:
        raise SystemExit(f"not every row was answered by calls of its own: {end}, {calls.counts}")
    return samples


def per_block(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """The table: each block against the sample before it."""
    return [_block(before, after) for before, after in pairwise(samples)]


def _block(before: Sample, after: Sample) -> dict[str, Any]:
    rows = after.work - before.work
    return {
        "rows": after.rows,
        "rows/s": rows / (after.wall_s - before.wall_s),
        "CPU ms/row": 1000 * (after.cpu_s - before.cpu_s) / rows,
        "peak MB": after.peak_bytes / 1e6,
        "database MB": after.database_bytes / 1e6,
        "swaps": after.swaps - before.swaps,
    }


def main(
    *,
    rows: Annotated[int, typer.Option(min=BLOCKS, help="Rows to measure.")] = 100_000,
    in_flight: Annotated[int, typer.Option(min=1, help="Most rows at once.")] = IN_FLIGHT,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """Whether the cost of a row and the memory stay the same over a long run."""
    with tempfile.TemporaryDirectory(prefix="slimmoa-rows-") as folder:
        blocks = per_block(asyncio.run(measured(rows, in_flight, Path(folder))))
    costs = [block["CPU ms/row"] for block in blocks]
    limits = [
        Limit(
            f"CPU per row, last {COMPARED} blocks over first {COMPARED}",
            fmean(costs[-COMPARED:]) / fmean(costs[:COMPARED]),
            CPU_LIMIT,
        ),
        Limit(
            "peak memory, after the last block over after the first",
            blocks[-1]["peak MB"] / blocks[0]["peak MB"],
            MEMORY_LIMIT,
        ),
    ]
    report(f"{rows} rows, {in_flight} in flight, three models in one slot", blocks, limits, json)


if __name__ == "__main__":
    run(main)
