"""The options of deployments: the resources, nodes and numbers of replicas to ask of Ray and Serve.

Pure, and without Ray: each function returns keyword arguments of `ray.serve.deployment`.
"""

import math
from typing import Any

from cluster.plan.by_node import ReplicasByNode, cards_on
from cluster.plan.card_fill import cut_to_ray_digits
from cluster.plan.placement import Placement
from configs.schema import Model
from serve_app.follow_nodes import FollowNodes

NODE_LABEL = "ray.io/node-id"
"""Ray's own label of each node, with the node's ID."""
HEALTH_S = 2.0
"""Seconds between Serve's health checks of a replica. A dead ingress keeps its share of the queue until
it is noticed: at Serve's default of 10 s the other ingresses refused requests that they had room
for."""
INGRESS_REQUESTS = 4096
"""Requests at a time in one ingress, where Serve's default is 5. Queues are bounded at the engines."""
QUEUE_FACTOR = 2
"""A replica's queue over the recipe's. The ingress keeps the recipe's bound over all replicas of a
model, and Serve's router may spread the calls unevenly: one replica then has more than its share."""
SHORT_CALLS = 64
"""Calls at a time beside the queue of a replica: those that count tokens or ask whether it is ready."""
BUSY = 0.8
"""Share of a replica's calls above which Serve adds another replica. The ingress never admits more
calls than the replicas can run, so scaling would never start if the share were 1."""
UPSCALE_S = 5.0
"""Seconds that the load must last before Serve adds a replica; Serve's default is 30 s."""
UNBOUNDED = 10_000
"""Most replicas of a model that follows the nodes. Serve requires a number; the nodes are the bound."""
NODE_LOST_S = 10.0
"""Seconds that a node may be away before its replicas are given up."""


def ingress_options(replicas: int, nodes: int) -> dict[str, Any]:
    """Options of the ingress: its replicas are spread evenly over the nodes of the cluster.

    Serve may restart an ingress on any node. Without a limit for each node all of them could end up on
    one node and be lost with it.
    """
    options: dict[str, Any] = {
        "num_replicas": replicas,
        "max_ongoing_requests": INGRESS_REQUESTS,
        "health_check_period_s": HEALTH_S,
        "ray_actor_options": {"num_cpus": 0},
    }
    if replicas > 1:
        options["max_replicas_per_node"] = math.ceil(replicas / nodes)
    return options


def replica_queue(recipe_queue: int) -> int:
    """How many calls may wait at one replica, where the recipe allows `recipe_queue` per replica."""
    return QUEUE_FACTOR * recipe_queue


def model_options(
    model: Model, queue: int, plan: Placement, replicas: ReplicasByNode | None, *, follow_nodes: bool
) -> dict[str, Any]:
    """Options of a model's deployment.

    Args:
        model: its settings.
        queue: how many calls may wait at one replica.
        plan: the placement of all models.
        replicas: the model's replicas in the plan, or None if it takes no card.
        follow_nodes: whether replicas are added and removed as nodes join and leave the cluster.
    """
    options: dict[str, Any] = {
        "max_ongoing_requests": model.concurrency + queue + SHORT_CALLS,
        "health_check_period_s": HEALTH_S,
    }
    if replicas is None:
        options["ray_actor_options"] = {"num_cpus": 0}
        return options | _count_options(model, model.replicas.min)
    options |= _placement_options(plan, replicas, follow_nodes=follow_nodes)
    if model.replicas.max is None and follow_nodes:
        return options | {"autoscaling_config": _scale_with_nodes(plan, replicas)}
    return options | _count_options(model, len(replicas.all))


def _placement_options(
    plan: Placement, replicas: ReplicasByNode, *, follow_nodes: bool
) -> dict[str, Any]:
    """Options that put a model's replicas on the nodes where the plan has them."""
    first = replicas.all[0]
    card = plan.cards[first.card].card
    if card.kind == "gpu":
        actor: dict[str, Any] = {"num_cpus": 0, "num_gpus": cut_to_ray_digits(first.fraction)}
    else:
        actor = {"num_cpus": cut_to_ray_digits(first.fraction * card.cores)}
    options: dict[str, Any] = {"ray_actor_options": actor}
    if follow_nodes or len(replicas.nodes) > 1:
        options["max_replicas_per_node"] = replicas.most_on_a_node
        if replicas.node_selector is not None:
            actor["label_selector"] = {NODE_LABEL: replicas.node_selector}
    return options


def _count_options(model: Model, count: int) -> dict[str, Any]:
    """`count` replicas; where the recipe has a range, a number in it that follows the load."""
    least, most = model.replicas.min, model.replicas.max
    if most is None or least == most:
        return {"num_replicas": count}
    scaling = {
        "min_replicas": least,
        "max_replicas": most,
        "initial_replicas": count,
        "target_ongoing_requests": BUSY * model.concurrency,
        "upscale_delay_s": UPSCALE_S,
    }
    return {"autoscaling_config": scaling}


def _scale_with_nodes(plan: Placement, replicas: ReplicasByNode) -> dict[str, Any]:
    """As many replicas as the present nodes have room for."""
    pattern = cards_on(plan, replicas.pattern)
    gpus = sum(len(card.indices) for card in pattern if card.kind == "gpu")
    known = {node: len(each) for node, each in replicas.nodes.items()}
    arguments = {
        "replicas": known | dict.fromkeys(replicas.without, 0),
        "joining": len(replicas.on_joining_node),
        "resource": "GPU" if gpus else "CPU",
        "amount": gpus or pattern[0].cores,
    }
    return {
        "min_replicas": 1,
        "max_replicas": UNBOUNDED,
        "initial_replicas": len(replicas.all),
        "policy": {"policy_function": FollowNodes, "policy_kwargs": arguments},
        "upscale_delay_s": 0,
        "downscale_delay_s": NODE_LOST_S,
    }
