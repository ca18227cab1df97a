"""The options of deployments: the resources, nodes and numbers of replicas to ask of Ray and Serve.

The functions are pure and need no Ray. Those named `..._options` return keyword arguments of
`ray.serve.deployment`.
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
"""Seconds between Serve's health checks of a replica. A dead ingress keeps its part of the queues until
a health check fails. At Serve's default of 10 s, the other ingresses refused requests although the
models had room."""
INGRESS_REQUESTS = 4096
"""Most requests at a time in one ingress; Serve's default is 5. The number may be high, because the
queues at the engines have bounds of their own."""
QUEUE_FACTOR = 2
"""A replica's queue divided by the recipe's queue. The ingress keeps the recipe's bound for all
replicas of a model together. Serve's router may spread the calls unevenly, so that a replica has more
than its share."""
SHORT_CALLS = 64
"""Calls at a time that a replica takes in beside those that it runs or queues: short calls that count
tokens or ask whether the replica is ready."""
BUSY = 0.8
"""Share of the calls that a replica can run; above this share Serve adds another replica. Where the
recipe's queue is 0, the ingress admits no more calls than the replicas can run. So with a share of 1
Serve would never add a replica."""
UPSCALE_S = 5.0
"""Seconds that the load must last before Serve adds a replica; Serve's default is 30 s."""
UNBOUNDED = 10_000
"""Most replicas of a model that follows the nodes. Serve requires a number; the nodes are the bound."""
NODE_LOST_S = 10.0
"""Seconds that a node may be out of the cluster before Serve gives up its replicas."""


def ingress_options(replicas: int, nodes: int) -> dict[str, Any]:
    """Options of the ingress: its replicas are spread evenly over the nodes of the cluster.

    Serve may restart an ingress on any node. Without a limit for each node, all ingresses could end up
    on the same node and be lost with that node.

    Args:
        replicas: number of ingresses.
        nodes: number of nodes of the cluster.
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
        model: the model's settings.
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
    """Options for `count` replicas. If the recipe gives a range, Serve begins with `count` replicas and
    then follows the load within the range."""
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
    """Autoscaling settings for as many replicas as the present nodes have room for."""
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
