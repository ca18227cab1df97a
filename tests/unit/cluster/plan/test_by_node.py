"""A placement seen from its nodes."""

from cluster.cards.card import GIB, Card
from cluster.plan.by_node import ReplicasByNode, cards_on, replicas_by_node
from cluster.plan.placement import PlacedCard, PlacedReplica, PlacedSlot, Placement


def make_placement(*cards: tuple[str, list[tuple[str, int]]]) -> Placement:
    """A placement of cards by node; each replica, by model and number, has a slot of its own."""
    placed = []
    for number, (node, replicas) in enumerate(cards):
        slots = tuple(
            PlacedSlot(members=(make_replica(*replica, number, slot),), total_bytes=GIB)
            for slot, replica in enumerate(replicas)
        )
        card = Card(name=f"gpu {number}", total_bytes=80 * GIB, kind="gpu", node=node)
        placed.append(PlacedCard(card=card, usable_bytes=78 * GIB, slots=slots))
    return Placement(recipe="mix", cards=tuple(placed))


def make_replica(model: str, number: int, card: int, slot: int) -> PlacedReplica:
    return PlacedReplica(
        model=model,
        replica=number,
        order=0,
        card=card,
        slot=slot,
        weights=GIB,
        kv=0,
        activations=0,
        residue=0,
        sequences=4,
        threads=1,
        fraction=0.25,
        utilization=0.1,
    )


def by_node(placement: Placement, model: str) -> ReplicasByNode:
    found = replicas_by_node(placement, model)
    assert found is not None
    return found


def test_where_every_node_has_the_model_any_node_may_take_it_and_one_that_joins_too() -> None:
    found = by_node(make_placement(("n1", [("a", 0)]), ("n2", [("a", 1)])), "a")
    assert found.node_selector is None
    assert found.most_on_a_node == 1
    assert [replica.replica for replica in found.on_joining_node] == [0]


def test_nodes_without_a_replica_of_the_model_are_excluded() -> None:
    placement = make_placement(("n1", [("a", 0)]), ("n2", [("b", 0)]), ("n3", []))
    a, b = by_node(placement, "a"), by_node(placement, "b")
    assert a.node_selector == "!in(n2,n3)"
    assert b.node_selector == "in(n2)", "a node that joins becomes as n1, which has no b"
    assert b.on_joining_node == ()


def test_the_pattern_is_the_first_node_with_a_slot() -> None:
    placement = make_placement(("n1", []), ("n2", [("a", 0)]), ("n3", [("a", 1), ("b", 0)]))
    assert {by_node(placement, model).pattern for model in "ab"} == {"n2"}
    assert by_node(placement, "a").without == ("n1",)


def test_replicas_are_counted_by_node() -> None:
    placement = make_placement(("n1", [("a", 0)]), ("n1", [("a", 1)]), ("n2", [("a", 2)]))
    found = by_node(placement, "a")
    assert found.most_on_a_node == 2
    assert {node: len(replicas) for node, replicas in found.nodes.items()} == {"n1": 2, "n2": 1}
    assert [replica.card for replica in found.all] == [0, 1, 2]
    assert [card.name for card in cards_on(placement, "n1")] == ["gpu 0", "gpu 1"]


def test_a_model_that_takes_no_card_is_on_no_node() -> None:
    assert replicas_by_node(make_placement(("n1", [("a", 0)])), "remote") is None
