"""Diversity of proposals, measured over proposals in a store."""

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from actors.engine import Delta
from jobs.ablation.diversity import Diversity, Floats, diversities, vendi_score
from jobs.records import Answer, Generator, Row, StoredCall, UsedCall
from jobs.store import Store

SKY = "The sky is blue because air scatters short waves of sunlight more than long ones."
SKY_TOO = "The sky looks blue because the air scatters short waves of light more than long ones."
RICE = "Fry rice with eggs, add spinach, then season it all with a spoon of soy sauce."
LETTER = "Dear landlord, a tap in my kitchen drips; could somebody repair it this week, please?"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        opened.add_rows(Row(n, (f"question {n}", "and more?")) for n in range(3))
        yield opened


def store_answer(
    store: Store, generator: str, row: int, *layers: Mapping[str, str], turn: int = 0
) -> None:
    """Store an answer with the calls behind it, the aggregator's too.

    Args:
        store: Gets the answer and the calls.
        generator: Name of the mixture.
        row: Index of the row.
        layers: Proposals by model, for each layer. A star after the model's name marks another sample.
        turn: Number of the turn.
    """
    store.add_generator(Generator(generator, "mixture", generator))
    calls = [(0, 0, "writer", "the answer")] + [
        (number, place, model, text)
        for number, layer in enumerate(layers, 1)
        for place, (model, text) in enumerate(layer.items())
    ]
    used = tuple(
        UsedCall(layer, place, model.rstrip("*"), _key(text, model))
        for layer, place, model, text in calls
    )

    async def keep() -> None:
        for each, (*_, text) in zip(used, calls, strict=True):
            await store.keep_call(StoredCall(each.key, each.model, None, Delta(text)))
        await store.keep_answer(Answer(generator, row, turn, "the answer", used))

    asyncio.run(keep())


def _key(text: str, model: str) -> bytes:
    return hashlib.sha256(f"{model}/{text}".encode()).digest()[:16]


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [
        (np.ones((1, 1)), 1),
        (np.eye(4), 4),
        (np.ones((4, 4)), 1),
        # Eigenvalues of K/n: 2/3 and 1/3.
        (np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]]), np.exp(np.log(3) - 2 / 3 * np.log(2))),
    ],
)
def test_the_vendi_score_is_the_effective_number(similarity: Floats, expected: float) -> None:
    assert vendi_score(similarity.astype(float)) == pytest.approx(expected)


def test_copies_count_once_and_strangers_each(store: Store) -> None:
    store_answer(store, "copies", 0, {"a": SKY, "b": SKY, "c": SKY})
    store_answer(store, "strangers", 0, {"a": SKY, "b": RICE, "c": LETTER})
    store_answer(store, "alike", 0, {"a": SKY, "b": SKY_TOO, "c": RICE})
    found = diversities(store, ["copies", "strangers", "alike"])
    assert found.vendi("copies") == pytest.approx(1)
    assert (found.vendi("strangers") or 0) > 2.8
    assert 1.8 < (found.vendi("alike") or 0) < 2.7
    assert [mixture.proposals for mixture in found.mixtures] == [3, 3, 3]
    assert found.vendi("nobody") is None


def test_rows_are_averaged_and_those_without_proposals_left_out(store: Store) -> None:
    store_answer(store, "mix", 0, {"a": SKY, "b": SKY})
    store_answer(store, "mix", 2, {"a": SKY})
    store_answer(store, "alone", 0)
    found = diversities(store, ["mix", "alone"])
    mix, alone = found.mixtures
    assert (mix.rows, mix.proposals) == (2, 1.5)
    assert mix.vendi == pytest.approx(1)
    assert alone == Diversity("alone", 0, None, None)


def test_what_the_aggregator_read_is_measured(store: Store) -> None:
    store_answer(store, "mix", 0, {"a": SKY, "b": RICE, "c": LETTER}, {"a": SKY, "b": SKY})
    store_answer(store, "mix", 0, {"a": RICE, "b": LETTER}, turn=1)
    (found,) = diversities(store, ["mix"]).mixtures
    assert (found.rows, found.proposals) == (1, 2)
    assert found.vendi == pytest.approx(1)


def test_reasoning_is_no_part_of_a_proposal(store: Store) -> None:
    store_answer(
        store, "mix", 0, {"a": f"<think>{RICE}</think>\n{SKY}", "b": f"<think>{LETTER}</think>{SKY}"}
    )
    assert diversities(store, ["mix"]).vendi("mix") == pytest.approx(1)


def test_the_most_similar_model_is_named(store: Store) -> None:
    store_answer(store, "mix", 0, {"a": SKY, "b": SKY_TOO, "c": RICE})
    store_answer(store, "mix", 1, {"a": LETTER, "b": LETTER, "c": SKY})
    found = diversities(store, ["mix"])
    nearest, value = found.nearest("a", ["b", "c"]) or ("", 0.0)
    assert nearest == "b"
    assert 0.7 < value < 1
    assert (found.nearest("a", ["c"]) or ("", 1.0))[1] < 0.2
    assert found.nearest("a", ["nobody"]) is None
    assert [(each.model, each.other, each.pairs) for each in found.similarities] == [
        ("a", "b", 2),
        ("a", "c", 2),
        ("b", "c", 2),
    ]


def test_samples_of_one_model_are_compared_with_each_other(store: Store) -> None:
    store_answer(store, "self", 0, {"a": SKY, "a*": RICE})
    found = diversities(store, ["self"])
    (pair,) = found.similarities
    assert (pair.model, pair.other, pair.pairs) == ("a", "a", 1)
    assert found.nearest("a", ["b"]) is None


def test_a_pair_that_stands_in_several_mixtures_counts_once(store: Store) -> None:
    for row in range(3):
        store_answer(store, "mix", row, {"a": SKY, "b": RICE, "c": LETTER})
        store_answer(store, "mix-without-c", row, {"a": SKY, "b": RICE})
    found = diversities(store, ["mix", "mix-without-c"])
    assert {each.pairs for each in found.similarities} == {3}


def test_figures_do_not_depend_on_what_else_is_measured(store: Store) -> None:
    for row in range(3):
        store_answer(store, "mix", row, {"a": SKY, "b": SKY_TOO, "c": LETTER})
        store_answer(store, "mix-with-d", row, {"a": SKY, "b": SKY_TOO, "c": LETTER, "d": RICE})
    few, more = diversities(store, ["mix"]), diversities(store, ["mix", "mix-with-d"])
    assert few.mixtures[0] == more.mixtures[0]
    assert set(few.similarities) < set(more.similarities)
    assert json.loads(json.dumps(asdict(more)))["mixtures"][0]["generator"] == "mix"


def test_texts_without_spaces_or_without_any_text_are_compared_too(store: Store) -> None:
    sky, sky_too, rice = (
        "天空是蓝色的，因为空气散射阳光",
        "天空是蓝色的，因为空气散射短波光",
        "炒饭加鸡蛋和菠菜",
    )
    store_answer(store, "mix", 0, {"a": sky, "b": sky_too, "c": rice})
    store_answer(store, "empty", 1, {"a": "", "b": ""})
    found = diversities(store, ["mix", "empty"])
    values = {(each.model, each.other): each.value for each in found.similarities}
    assert values["a", "b"] > values["a", "c"]
    assert found.vendi("empty") == pytest.approx(2)


def test_nothing_stored_is_nothing_measured(store: Store) -> None:
    store.add_generator(Generator("mix", "mixture", "mix"))
    found = diversities(store, ["mix"])
    assert (found.mixtures, found.similarities) == ((Diversity("mix", 0, None, None),), ())
