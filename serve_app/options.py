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
from serve_app.follow_load import FollowLoad
from serve_app.follow_nodes import FollowNodes

NODE_LABEL = "ray.io/node-id"
"""Ray's own label of each node, with the node's ID."""
HEALTH_S = 2.0
"""Seconds between Serve's health checks of a replica. A dead ingress keeps its part of the queues until
a health check fails. At Serve's default of 10 s, the other ingresses refused requests although the
models had room."""
INGRESS_REQUESTS = 4096
"""Most requests at a time that Serve's proxies give one ingress; Serve's default is 5. The number may
be high, because the queues at the engines have bounds of their own."""
QUEUE_FACTOR = 2
"""A replica's queue divided by the recipe's queue. The ingress keeps the recipe's bound for all
replicas of a model together. Each ingress knows only its own calls, so that a replica may have more
than its share."""
SHORT_CALLS = 64
"""Calls over a Serve handle that a replica takes in at a time beside as many as it can run and queue.
The ingress and jobs call replicas over connections, which Serve does not count."""
BUSY = 0.8
"""Share of the calls that a replica can run; above this share another replica is added. Where the
recipe's queue is 0, the ingress admits no more calls than the replicas can run. So with a share of 1
no replica would ever be added."""
REPORT_S = 2.0
"""Seconds between two reports of a replica on its calls. Only models that follow the load report."""
LOOK_BACK_S = 5.0
"""Seconds over which a replica's calls are averaged. A model has no calls while an answer is at another
stage. Without the average, UPSCALE_S would begin anew after each such pause."""
UPSCALE_S = 5.0
"""Seconds that the load must last before a replica is added; Serve's default is 30 s."""
DOWNSCALE_S = 600.0
"""Seconds that a replica must be needless before it is removed, as by Serve's default: a large model
takes minutes to start again."""
NO_REPORT_S = 3600.0
"""Seconds between two reports of a replica whose model follows the nodes. Nobody reads them, but Serve
has the replicas of all models report whose number can change."""
UNBOUNDED = 10_000
"""Most replicas of a model that follows the nodes. Serve requires a number; the nodes are the bound."""
NODE_LOST_S = 10.0
"""Seconds that a node may be out of the cluster before Serve gives up its replicas."""
END_S = 20.0
"""Seconds that a replica has to end once its calls are drained; then Serve kills it. It is Serve's own
default for draining and ending together, and vLLM takes some of it."""
STOP_LOOP_S = 0.1
"""Seconds between two looks of a replica that stops at its calls over Serve's handles. Serve sleeps
once before the first look, by default for 2 s, which would delay the end of an idle replica."""
ONE_MORE = 1
"""Percent of a deployment's replicas by which Serve may exceed their number during a redeployment.
Serve rounds up, so this is one replica. It is ready before an old one stops, so that a deployment with
a single replica goes on answering."""


def ingress_options(replicas: int, nodes: int, drain_s: float) -> dict[str, Any]:
    """Options of the ingress: its replicas are spread evenly over the nodes of the cluster.

    Serve may restart an ingress on any node. Without a limit for each node, all ingresses could end up
    on the same node and be lost with that node. The limit leaves no room for one more replica during a
    redeployment, but then others run.

    Args:
        replicas: number of ingresses.
        nodes: number of nodes of the cluster.
        drain_s: longest time in seconds that a stopped ingress finishes its requests.
    """
    options: dict[str, Any] = {
        "num_replicas": replicas,
        "max_ongoing_requests": INGRESS_REQUESTS,
        "ray_actor_options": {"num_cpus": 0},
        **_life_options(drain_s),
    }
    if replicas > 1:
        options["max_replicas_per_node"] = math.ceil(replicas / nodes)
    else:
        options["max_surge_percent"] = ONE_MORE
    return options


def _life_options(drain_s: float) -> dict[str, Any]:
    """Options of every deployment on how a replica is watched and how it ends.

    Args:
        drain_s: longest time in seconds that a stopped replica finishes its calls.
    """
    return {
        "health_check_period_s": HEALTH_S,
        "graceful_shutdown_timeout_s": drain_s + END_S,
        "graceful_shutdown_wait_loop_s": STOP_LOOP_S,
    }


def replica_queue(recipe_queue: int) -> int:
    """How many calls may wait at one replica, where the recipe allows `recipe_queue` per replica."""
    return QUEUE_FACTOR * recipe_queue


def model_options(
    model: Model,
    queue: int,
    plan: Placement,
    replicas: ReplicasByNode | None,
    *,
    drain_s: float,
    follow_nodes: bool,
) -> dict[str, Any]:
    """Options of a model's deployment.

    Args:
        model: the model's settings.
        queue: how many calls may wait at one replica.
        plan: the placement of all models.
        replicas: the model's replicas in the plan, or None if it takes no card.
        drain_s: longest time in seconds that a stopped replica finishes its calls.
        follow_nodes: whether replicas are added and removed as nodes join and leave the cluster.
    """
    options: dict[str, Any] = {
        "max_ongoing_requests": model.concurrency + queue + SHORT_CALLS,
        **_life_options(drain_s),
    }
    if replicas is None:
        options |= {"ray_actor_options": {"num_cpus": 0}, "max_surge_percent": ONE_MORE}
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
        "policy": {
            "policy_function": FollowLoad,
            "policy_kwargs": {"target": BUSY * model.concurrency},
        },
        "metrics_interval_s": REPORT_S,
        "look_back_period_s": LOOK_BACK_S,
        "upscale_delay_s": UPSCALE_S,
        "downscale_delay_s": DOWNSCALE_S,
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
        "metrics_interval_s": NO_REPORT_S,
        "look_back_period_s": 2 * NO_REPORT_S,  # Serve wants it to be longer than the interval
        "upscale_delay_s": 0,
        "downscale_delay_s": NODE_LOST_S,
    }
