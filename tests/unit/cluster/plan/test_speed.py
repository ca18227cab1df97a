"""The arithmetic of one engine's speed, against published measurements."""

import statistics
from collections.abc import Callable
from dataclasses import replace

import pytest
from pydantic import TypeAdapter

from cluster.cards.card import GIB, Card
from cluster.cards.catalog import card_by_name
from cluster.cards.tensor_parallel import join_cards
from cluster.plan import speed
from cluster.plan.checkpoint import Checkpoint
from cluster.plan.footprint import kv_bytes
from cluster.plan.speed import decode_rate, start_s, wake_s
from configs.schema import Model
from tests.unit.cluster.plan.published_speeds import (
    BATCHES,
    OTHER_ENGINES,
    SHAPES,
    SINGLE,
    STARTS,
    WAKES,
    Speed,
)

MakeCheckpoint = Callable[..., Checkpoint]
FACTOR = 1.5
"""Predicted tokens per second may be at most this many times what was published, and what was published
at most this many times what is predicted."""
PREDICTED = [row for row in (*SINGLE, *OTHER_ENGINES) if not row.miss]
MISSED = [row for row in (*SINGLE, *OTHER_ENGINES) if row.miss]


def ratio(row: Speed) -> float:
    """Predicted tokens per second over the published."""
    checkpoint = SHAPES[row.model].checkpoint(row.bits)
    cache = kv_bytes(checkpoint, row.tokens, 0, 2) * row.sequences
    return decode_rate(checkpoint, row.on, row.sequences, cache) / row.rate


def settings(engine: str, **more: object) -> Model:
    """The settings of a model of an engine."""
    given = {"engine": engine, "weights": [{"path": "x.gguf" if engine == "llamacpp" else "x"}], **more}
    if engine == "scripted":
        del given["weights"]
    return TypeAdapter[Model](Model).validate_python(given)


def joined(name: str, gpus: int) -> Card:
    (card,) = join_cards([card_by_name(name, n) for n in range(gpus)], gpus)
    return card


@pytest.mark.parametrize("row", PREDICTED, ids=str)
def test_one_sequence_is_within_a_factor_of_what_was_published(row: Speed) -> None:
    assert 1 / FACTOR < ratio(row) < FACTOR, row.source


@pytest.mark.parametrize("row", MISSED, ids=str)
def test_known_misses_are_too_fast_predictions(row: Speed) -> None:
    # `miss` tells of each of them why it is slower than others of its kind.
    assert FACTOR < ratio(row) < 2.1, row.source


def test_what_was_held_back_is_predicted_about_as_well_as_what_was_fitted() -> None:
    held_back = [row for row in PREDICTED if not row.fitted and row in SINGLE]
    fitted = [row for row in PREDICTED if row.fitted]
    assert len(held_back) > len(fitted) > 40
    assert len({row.card for row in held_back}) >= 8
    for rows in (held_back, fitted):
        assert statistics.median(ratio(row) for row in rows) == pytest.approx(1, abs=0.1)
        close = [row for row in rows if 0.8 < ratio(row) < 1.25]
        assert len(close) / len(rows) > 0.9


@pytest.mark.parametrize("row", BATCHES, ids=str)
def test_several_sequences_are_within_the_same_factor(row: Speed) -> None:
    assert 1 / FACTOR < ratio(row) < FACTOR, row.source


def test_a_70b_model_in_4_bits_is_unpacked_no_faster_on_an_h100_than_on_an_a100() -> None:
    checkpoint = SHAPES["R1-Distill-Llama-70B"].checkpoint(4)
    a100, h100 = (decode_rate(checkpoint, card_by_name(n), 1, 0) for n in ("A100-80GB", "H100-80GB"))
    assert h100 == pytest.approx(a100)
    assert a100 == pytest.approx(1024 / 35.3, rel=0.1)  # the two model cards that speed.py cites
    assert h100 == pytest.approx(1024 / 31.2, rel=0.1)
    assert decode_rate(checkpoint, joined("A100-80GB", 2), 1, 0) > 1.6 * a100


def test_a_step_takes_time_for_each_layer_however_small_it_is(make_checkpoint: MakeCheckpoint) -> None:
    fast = replace(card_by_name("B200-180GB"), bandwidth=1e18, flops=1e21)
    small = make_checkpoint(1)
    assert 1 / decode_rate(small, fast, 1, 0) == pytest.approx(
        speed.STEP_S + small.layers * speed.LAYER_S, rel=1e-3
    )
    assert decode_rate(small, fast, 4, 0) == pytest.approx(4 * decode_rate(small, fast, 1, 0), rel=1e-3)


def test_a_cpu_reads_and_computes_and_nothing_else(make_checkpoint: MakeCheckpoint) -> None:
    cpu = Card("cpu", 32 * GIB, cores=2, bandwidth=2e10, flops=1e11)
    checkpoint = make_checkpoint(4)
    rate = decode_rate(checkpoint, cpu, 1, 1e8)
    assert rate == pytest.approx(0.6 * 2e10 / (checkpoint.read_bytes(1) + 1e8))


@pytest.mark.parametrize(("layers", "gigabytes", "seconds"), STARTS.values(), ids=STARTS)
def test_a_start_of_vllm_is_within_a_tenth_of_what_was_published(
    layers: int, gigabytes: float, seconds: float, make_checkpoint: MakeCheckpoint
) -> None:
    checkpoint = replace(make_checkpoint(4), layers=layers, weight_bytes=int(gigabytes * 1e9))
    found = start_s(settings("vllm"), checkpoint, card_by_name("A100-80GB"))
    assert found == pytest.approx(seconds, rel=0.1)


def test_engines_without_graphs_or_without_weights_start_sooner(
    make_checkpoint: MakeCheckpoint,
) -> None:
    checkpoint, card = make_checkpoint(16), card_by_name("A100-80GB")
    loading_s = 16 * GIB / speed.DISK
    assert start_s(settings("vllm", eager=True), checkpoint, card) == pytest.approx(
        speed.VLLM_START_S + loading_s
    )
    assert start_s(settings("vllm"), checkpoint, Card("cpu", 64 * GIB)) == pytest.approx(
        speed.VLLM_START_S + loading_s
    )
    assert start_s(settings("llamacpp"), checkpoint, card) == pytest.approx(
        speed.LLAMACPP_START_S + loading_s
    )
    assert start_s(settings("scripted", start_s=3), checkpoint, card) == 0


@pytest.mark.parametrize(("gigabytes", "card", "gpus", "seconds", "source"), WAKES)
def test_a_wake_is_within_a_tenth_of_what_was_published(
    gigabytes: float, card: str, gpus: int, seconds: float, source: str
) -> None:
    found = wake_s(int(gigabytes * 1e9), joined(card, gpus))
    assert found == pytest.approx(seconds, rel=0.1), source


def test_more_than_two_gpus_wake_no_faster_than_two() -> None:
    one, two, four = (wake_s(100 * GIB, joined("A100-80GB", n)) for n in (1, 2, 4))
    assert two - speed.WAKE_S == pytest.approx((one - speed.WAKE_S) / 2)
    assert four == pytest.approx(two)


def test_a_card_without_a_known_link_wakes_at_the_rate_of_a_disk() -> None:
    unknown = Card("mystery", 24 * GIB, kind="gpu")
    assert wake_s(10 * GIB, unknown) == pytest.approx(speed.WAKE_S + 10 * GIB / 0.75 / speed.DISK)
