"""A cluster of Ray nodes that are all on this machine, with logical cards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster import ray_runtime

CARD = "A100-80GB"


class Nodes:
    """A cluster of this machine: a head without cards, and nodes with one card each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "object_store_memory": ray_runtime.OBJECT_STORE_BYTES,
                "include_dashboard": False,
            },
        )
        self.address: str = self._cluster.address
        self._nodes: list[Any] = []

    def add(self, count: int = 1, cards: str = CARD) -> None:
        """Have `count` more nodes join, each with these cards."""
        for _ in range(count):
            self._nodes.append(
                self._cluster.add_node(
                    num_cpus=1,
                    num_gpus=len(cards.split(",")),
                    object_store_memory=ray_runtime.OBJECT_STORE_BYTES,
                    env_vars={"SLIMMOA_CARDS": cards},
                )
            )

    def lose(self, which: int = -1) -> None:
        """One node, by default the last that has joined, and all that runs on it is killed."""
        self._cluster.remove_node(self._nodes.pop(which), allow_graceful=False)

    def close(self) -> None:
        """End all of it."""
        self._cluster.shutdown()


@contextmanager
def cluster(*nodes_cards: str) -> Iterator[Nodes]:
    """A cluster with a node for each of these lists of cards, joined."""
    ray_runtime.set_environment()
    nodes = Nodes()
    try:
        for cards in nodes_cards:
            nodes.add(cards=cards)
        ray_runtime.connect(nodes.address, verbose=False)
        yield nodes
    finally:
        ray_runtime.disconnect(None, local=True)
        nodes.close()
