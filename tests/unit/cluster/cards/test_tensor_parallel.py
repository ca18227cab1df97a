"""GPUs that are joined into one card: which ones, and what the card has."""

from dataclasses import replace
from typing import Any

from cluster.cards.card import GIB, Card
from cluster.cards.catalog import CARDS, card_by_name
from cluster.cards.tensor_parallel import join_cards, unused_cards


def cards(name: str, count: int, **more: Any) -> list[Card]:
    return [replace(card_by_name(name, n), **more) for n in range(count)]


def test_a_joined_card_has_the_sums_and_says_so() -> None:
    (card,) = join_cards(cards("A100-80GB", 4, node="n", host_bytes=GIB), 4)
    one = CARDS["A100-80GB"]
    assert (card.name, card.indices, card.node, card.host_bytes) == (
        "4 x A100-80GB",
        (0, 1, 2, 3),
        "n",
        GIB,
    )
    assert one.bandwidth
    assert one.flops
    assert one.link
    assert (card.total_bytes, card.bandwidth, card.flops, card.link) == (
        4 * one.total_bytes,
        4 * one.bandwidth,
        4 * one.flops,
        4 * one.link,
    )


def test_only_what_is_alike_and_on_one_node_is_joined() -> None:
    here = [
        replace(card_by_name("A100-80GB", 0), node="n"),
        replace(card_by_name("H100-80GB", 1), node="n"),
        replace(card_by_name("A100-80GB", 2), node="n"),
        replace(card_by_name("A100-80GB", 3), node="n"),
        replace(card_by_name("H100-80GB", 0), node="m"),
        Card("cpu", GIB, node="n"),
    ]
    wide = join_cards(here, 2)
    assert [(card.node, card.name, card.indices) for card in wide] == [
        ("n", "2 x A100-80GB", (0, 2)),
        ("n", "cpu", (0,)),
    ]
    assert unused_cards(here, wide) == (here[1], here[3], here[4])
    assert join_cards(here, 1) == here


def test_the_fullest_gpu_is_the_limit_of_all() -> None:
    first, second = cards("A100-80GB", 2, free_bytes=70 * GIB)
    (card,) = join_cards([first, replace(second, free_bytes=20 * GIB)], 2)
    assert card.free_bytes == 40 * GIB
    (card,) = join_cards([first, replace(second, free_bytes=None)], 2)
    assert card.free_bytes is None
