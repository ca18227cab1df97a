"""The steps of the GPU check on a pretended card: every figure, and every way to fail."""

from pathlib import Path

import pytest

from benchmarks.real_cards.gpu_check import CALLS, SMALL, short_name
from benchmarks.real_cards.parts import Alone, Pair
from benchmarks.real_cards.planned import plan_models
from benchmarks.real_cards.rows import Row
from cluster.cards.card import GIB, MIB
from cluster.plan.checkpoint import from_shapes
from cluster.plan.footprint import footprint, gib
from tests.unit.benchmarks.real_cards.pretended import PARENT, Pretended, PretendedEngine, figure

pytestmark = pytest.mark.virtual_time

LLAMA = ("llama", SMALL)
QWEN_72B = ("qwen-72b", "slim_moa_a100/qwen2.5-72b")
GEMMA = ("gemma", "slim_moa_a100/gemma-2-9b-wpo")
STEPS = [
    "start",
    "sleep",
    "wake",
    "second sleep",
    "second wake",
    "speed",
    "kill -9",
    "start again",
    "stop",
]


def bad(rows: list[Row]) -> list[str]:
    return [f"{row.step}: {row.what}" for row in rows if row.good is False]


async def test_one_engine_that_keeps_to_the_plan_has_every_figure(tmp_path: Path) -> None:
    def loads(engine: PretendedEngine) -> None:
        engine.loading_bytes, engine.seconds = 100 * MIB, {"wake": 0.5, "sleep": 3.0}

    world = Pretended(tmp_path, changes=loads)
    rows = await world.rows(Alone(world.bench(), *LLAMA))
    assert bad(rows) == []
    assert list(dict.fromkeys(row.step for row in rows)) == STEPS
    needs = world.engines[0].planned.needs
    awake = figure(rows, "start", "bytes awake")
    assert (awake.planned, awake.measured, awake.good) == (needs.awake, needs.awake, True)
    peak = figure(rows, "start", "peak while starting")
    assert (peak.planned, peak.measured) == (needs.peak, needs.awake + 100 * MIB)
    assert figure(rows, "start", "RAM of the host").planned == needs.processes
    asleep = figure(rows, "second sleep", "bytes left on the card")
    assert (asleep.planned, asleep.measured, asleep.good) == (needs.asleep, needs.asleep, True)
    host = figure(rows, "sleep", "RAM of the host")
    assert (host.planned, host.measured) == (needs.parked, needs.parked)
    assert figure(rows, "sleep", "seconds to fall asleep").measured == pytest.approx(3.0)
    wake = figure(rows, "second wake", "seconds to wake")
    assert wake.measured == pytest.approx(0.5)
    assert wake.planned == pytest.approx(needs.weights / 63e9)
    rate = figure(rows, "wake", "weights over the link")
    assert rate.measured == pytest.approx(needs.weights / 0.5 / 1e9)
    assert figure(rows, "wake", "same answer as before sleep").measured == "yes"
    assert figure(rows, "start", "bytes of the replica's own process").measured == 0
    assert f"{PARENT + 1}: " in figure(rows, "start", "bytes of the replica's own process").note
    assert figure(rows, "kill -9", "of 1 processes alive after the kill").measured == 0
    assert figure(rows, "stop", "bytes left").measured == 0
    one, many = (row for row in rows if row.step == "speed")
    assert (one.measured, many.measured) == (70.0, 64.0)
    assert many.planned == pytest.approx(world.engines[0].planned.speed.batch)  # type: ignore[union-attr]
    assert world.engines[0].is_closed


@pytest.mark.parametrize(
    ("change", "worse"),
    [
        ({"awake_factor": 1.03}, ["start: bytes awake", "wake: bytes awake again"]),
        ({"answers": ["The Rhine", "!!!!", "The Rhine"]}, ["wake: same answer as before sleep"]),
        ({"stays_s": 61.0}, ["kill -9: seconds until its memory was back"]),
    ],
)
async def test_a_figure_that_is_worse_than_planned_is_bad(
    tmp_path: Path, change: dict[str, object], worse: list[str]
) -> None:
    def worsen(engine: PretendedEngine) -> None:
        for name, value in change.items():
            setattr(engine, name, value)

    world = Pretended(tmp_path, changes=worsen)
    rows = await world.rows(Alone(world.bench(), *LLAMA))
    assert set(worse) <= set(bad(rows))
    assert [row for row in rows if row.kind != "row"] == []


async def test_memory_that_comes_back_late_is_measured(tmp_path: Path) -> None:
    def late(engine: PretendedEngine) -> None:
        engine.stays_s = 10.0

    world = Pretended(tmp_path, changes=late)
    rows = await world.rows(Alone(world.bench(), *LLAMA))
    back = figure(rows, "kill -9", "seconds until its memory was back")
    assert back.measured == pytest.approx(10.0, abs=0.05)
    assert back.good is True


@pytest.mark.parametrize(
    ("order", "failed", "still_measured"),
    [
        ("spawn", "start", set()),
        ("start", "start", set()),
        ("sleep", "sleep", {"start", "speed", "kill -9"}),
        ("wake", "wake", {"start", "sleep", "speed", "kill -9"}),
        ("speed", "start", set()),
        ("kill", "kill -9", {"start", "sleep", "wake", "second wake", "speed"}),
    ],
)
async def test_an_engine_that_fails_is_a_row_and_the_rest_goes_on(
    tmp_path: Path, order: str, failed: str, still_measured: set[str]
) -> None:
    def fail(engine: PretendedEngine) -> None:
        engine.broken = {order: "cudaHostAlloc: out of memory\nand 80 lines of a traceback"}

    world = Pretended(tmp_path, changes=fail)
    rows = await world.rows(Alone(world.bench(), *LLAMA))
    (failure,) = [row for row in rows if row.kind == "failed" and row.step == failed]
    assert failure.note == "HolderError: cudaHostAlloc: out of memory and 80 lines of a traceback"
    assert failure.good is False
    assert still_measured <= {row.step for row in rows if row.kind == "row"}
    skipped = {row.step: row.note for row in rows if row.kind == "skipped"}
    assert set(STEPS) == still_measured | {failed} | set(skipped) | {
        row.step for row in rows if row.kind == "row"
    }
    if order == "sleep":
        assert skipped["wake"] == "'sleep' did not succeed"
    assert world.engines[0].is_closed


async def test_an_engine_that_hangs_costs_its_limit_and_no_more(tmp_path: Path) -> None:
    def hang(engine: PretendedEngine) -> None:
        engine.broken = {"wake": None}

    world = Pretended(tmp_path, changes=hang)
    rows = await world.rows(Alone(world.bench(), *LLAMA), seconds=300)
    (failure,) = [row for row in rows if row.kind == "failed"]
    assert failure.step == "wake"
    assert "it took longer than" in failure.note
    assert rows[-1].at_s <= 300
    assert world.engines[0].is_closed


async def test_a_budget_that_is_used_up_skips_the_rest_and_says_so(tmp_path: Path) -> None:
    def slow(engine: PretendedEngine) -> None:
        engine.seconds = {"start": 90.0}

    world = Pretended(tmp_path, changes=slow)
    rows = await world.rows(Alone(world.bench(), *LLAMA), seconds=150)
    assert figure(rows, "start", "seconds to start").measured == pytest.approx(91.0)
    skipped = {row.step: row.note for row in rows if row.kind == "skipped"}
    assert skipped.pop("start again").endswith("s are left")
    assert skipped == {"stop": "'start again' did not succeed"}
    assert rows[-1].at_s <= 150


async def test_a_budget_too_small_for_a_start_starts_nothing(tmp_path: Path) -> None:
    world = Pretended(tmp_path)
    rows = await world.rows(Alone(world.bench(), *LLAMA), seconds=60)
    assert {row.kind for row in rows} == {"skipped"}
    assert rows[0].note == "it takes about 75 s, and 40 s are left"
    assert world.engines[0].orders == []


async def test_a_large_engine_sleeps_and_wakes_beside_one_that_streams(tmp_path: Path) -> None:
    world = Pretended(tmp_path)
    rows = await world.rows(Pair(world.bench(), GEMMA, QWEN_72B, large=True))
    assert bad(rows) == []
    assert {row.kind for row in rows} == {"row"}
    gemma, qwen = world.engines
    assert figure(rows, "start qwen-72b", "bytes awake").measured == qwen.planned.needs.awake
    assert figure(rows, "start gemma", "bytes awake").measured == gemma.planned.needs.awake
    asleep = "second sleep, the other streams"
    assert figure(rows, asleep, "bytes left on the card").measured == qwen.planned.needs.asleep
    assert figure(rows, asleep, "gemma meanwhile").measured == 64.0
    assert figure(rows, asleep, "gemma: longest gap meanwhile").note == "alone 0.03 s"
    assert [order for order in gemma.orders if order in ("stream", "halt")] == ["stream", "halt"] * 2
    concurrency = qwen.planned.needs.sequences
    assert figure(rows, "speed", f"qwen-72b, {concurrency} sequences, both at once").measured == 64.0


async def test_a_stream_that_breaks_beside_a_sleep_does_not_hide_the_sleep(tmp_path: Path) -> None:
    def break_stream(engine: PretendedEngine) -> None:
        if engine.planned.name == "gemma":
            engine.broken = {"halt": "EngineDeadError"}

    world = Pretended(tmp_path, changes=break_stream)
    rows = await world.rows(Pair(world.bench(), GEMMA, QWEN_72B, large=True))
    step = "second sleep, the other streams"
    assert figure(rows, step, "seconds to fall asleep").measured == pytest.approx(1.0)
    assert figure(rows, step, "failed").note == "HolderError: EngineDeadError"


async def test_nobody_sleeps_where_the_host_has_no_ram_for_it(tmp_path: Path) -> None:
    """Review D: on a machine with too little RAM the system would kill an engine, and all rows end."""
    world = Pretended(tmp_path, host_gib=40)
    rows = await world.rows(Pair(world.bench(), GEMMA, QWEN_72B, large=True))
    row = figure(rows, "sleep", "skipped")
    more = world.engines[1].planned.needs.parked - world.engines[1].planned.needs.processes
    assert row.note == f"sleep takes {gib(more)} of the host's RAM, and 32.0 GiB are free"
    assert "sleep" not in world.engines[1].orders
    assert {"speed", "stop"} <= {row.step for row in rows if row.kind == "row"}


async def test_models_that_do_not_fit_are_a_row(tmp_path: Path) -> None:
    world = Pretended(tmp_path, card_name="RTX-4090")
    rows = await world.rows(Pair(world.bench(), GEMMA, QWEN_72B, large=True))
    assert rows[0].step == "plan"
    assert rows[0].kind == "failed"
    assert rows[0].note.startswith("DoesNotFit: The models of 'gpu-check' do not fit")
    assert {row.kind for row in rows[1:]} == {"skipped"}


async def test_only_the_given_bytes_of_the_card_are_used(tmp_path: Path) -> None:
    """Review D: with `--memory-gib 24` models take turns that would all fit on an H200."""
    world = Pretended(tmp_path)
    rows = await world.rows(Pair(world.bench(memory_bytes=24 * GIB), GEMMA, QWEN_72B))
    assert rows[0].note.startswith("DoesNotFit")


@pytest.mark.parametrize("call", CALLS)
def test_each_call_has_parts_on_an_h200_with_its_own_models(call: str, tmp_path: Path) -> None:
    plan = CALLS[call]
    parts = list(plan.parts(Pretended(tmp_path).bench(), plan.models))
    assert parts
    for part in parts:
        names = [step.name for step in part.steps()]
        assert len(set(names)) == len(names)
        for number, step in enumerate(part.steps()):
            assert set(step.after) <= set(names[:number])
    assert all("." not in short_name(source) for source in plan.models)  # Ray cuts titles at dots


def test_every_call_fits_into_ten_minutes_and_all_into_fifteen() -> None:
    """The machine's start takes two to three minutes of the fifteen, and unpacking most of one."""
    assert max(plan.seconds for plan in CALLS.values()) <= 600
    assert sum(plan.seconds for plan in CALLS.values()) <= (15 - 3) * 60


def test_planned_bytes_are_those_of_the_plan_for_the_real_checkpoint(tmp_path: Path) -> None:
    bench = Pretended(tmp_path).bench()
    (planned,) = plan_models(bench.machine, dict([QWEN_72B]))
    checkpoint = from_shapes("Qwen/Qwen2.5-72B-Instruct-AWQ")
    assert checkpoint is not None
    real = footprint(planned.model, checkpoint, "gpu", capability=bench.machine.card.capability)
    for name in ("weights", "kv", "loading", "parked", "awake", "asleep"):
        assert getattr(planned.needs, name) == pytest.approx(getattr(real, name), rel=1e-3), name
    assert planned.share.kv_cache_memory_bytes == real.kv
