"""What deployments ask of Ray and Serve, from plans of real recipes, without a cluster."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from cluster.cards.card import Card
from cluster.plan.by_node import replicas_by_node
from configs.schema import Recipe
from serve_app import options
from serve_app.follow_load import FollowLoad
from serve_app.follow_nodes import FollowNodes
from serve_app.options import ingress_options, model_options, replica_queue
from tests.unit.serve_app.planned import CPU, GPU, cards_of_nodes, make_plan, make_recipe


def options_of(
    recipe: Recipe, cards: Sequence[Card], model: str, *, follow_nodes: bool = False
) -> dict[str, Any]:
    plan = make_plan(recipe, cards)
    settings, replicas = recipe.models[model], replicas_by_node(plan, model)
    return model_options(settings, plan, replicas, drain_s=40, follow_nodes=follow_nodes)


def resources(recipe: Recipe, cards: Sequence[Card]) -> dict[str, dict[str, Any]]:
    """What an actor of each model asks of Ray."""
    return {name: options_of(recipe, cards, name)["ray_actor_options"] for name in recipe.models}


def test_on_one_gpu_a_replica_asks_for_its_slots_share_cut_to_rays_four_digits() -> None:
    recipe = make_recipe({"a": 12, "b": 13})
    found = resources(recipe, cards_of_nodes(GPU, 1))
    usable_gib = 40 * 0.98  # without the reserve
    assert found == {
        "a": {"num_cpus": 0, "num_gpus": int(12 / usable_gib * 10_000) / 10_000},
        "b": {"num_cpus": 0, "num_gpus": int(13 / usable_gib * 10_000) / 10_000},
    }
    assert found["a"]["num_gpus"] == 0.3061  # 0.30612...
    assert found["b"]["num_gpus"] == 0.3316  # 0.33163...


def test_shares_that_ray_would_round_up_still_fit_on_the_gpu() -> None:
    recipe = make_recipe({"a": 13, "b": 13, "c": 13}, cards={"memory_bytes": 39 << 30})
    shares = [each["num_gpus"] for each in resources(recipe, cards_of_nodes(GPU, 1)).values()]
    assert shares == [0.3333] * 3


def test_on_a_cpu_a_replica_asks_for_cores_and_no_gpu() -> None:
    recipe = make_recipe({"a": 1, "b": 1, "c": 1})
    assert resources(recipe, cards_of_nodes(CPU, 1)) == {n: {"num_cpus": 2.6664} for n in "abc"}


def test_on_joined_gpus_a_replica_asks_for_whole_ones() -> None:
    recipe = make_recipe({"a": 70}, cards={"tensor_parallel": 2})
    assert resources(recipe, cards_of_nodes(GPU, 2))["a"] == {"num_cpus": 0, "num_gpus": 2}


def test_a_model_that_takes_no_card_asks_for_nothing() -> None:
    recipe = make_recipe({"a": 12, "remote": None}, remote={"replicas": 3})
    found = options_of(recipe, cards_of_nodes(GPU, 1), "remote", follow_nodes=True)
    assert found["ray_actor_options"] == {"num_cpus": 0}
    assert found["num_replicas"] == 3
    assert "max_replicas_per_node" not in found
    assert "autoscaling_config" not in found
    assert found["max_surge_percent"] == options.ONE_MORE


def test_on_one_node_that_does_not_change_ray_may_choose_the_node() -> None:
    found = options_of(make_recipe({"a": 12}), cards_of_nodes(GPU, 1), "a")
    assert found["num_replicas"] == 1
    assert "max_replicas_per_node" not in found
    assert "label_selector" not in found["ray_actor_options"]


def test_on_several_nodes_each_gets_no_more_replicas_than_were_planned() -> None:
    recipe = make_recipe({"a": 30}, a={"replicas": 3})
    found = options_of(recipe, cards_of_nodes(GPU, 2, 1), "a")
    assert (found["num_replicas"], found["max_replicas_per_node"]) == (3, 2)
    assert "label_selector" not in found["ray_actor_options"], "every node has replicas of it"


def test_nodes_without_the_model_are_excluded() -> None:
    recipe = make_recipe({"a": 30, "b": 30}, a={"replicas": 1}, b={"replicas": 1})
    cards = cards_of_nodes(GPU, 1, 1)
    selectors = {
        name: options_of(recipe, cards, name, follow_nodes=True)["ray_actor_options"]["label_selector"]
        for name in recipe.models
    }
    assert selectors == {
        "a": {"ray.io/node-id": "!in(n2)"},
        "b": {"ray.io/node-id": "in(n2)"},
    }


def test_a_model_without_a_maximum_follows_the_nodes() -> None:
    recipe = make_recipe({"a": 30, "b": 30}, b={"replicas": 1})
    found = options_of(recipe, cards_of_nodes(GPU, 2, 2), "a", follow_nodes=True)
    scaling = found["autoscaling_config"]
    assert "num_replicas" not in found
    assert (scaling["min_replicas"], scaling["initial_replicas"]) == (1, 3)
    assert scaling["max_replicas"] == options.UNBOUNDED
    assert (scaling["upscale_delay_s"], scaling["downscale_delay_s"]) == (0, options.NODE_LOST_S)
    assert scaling["policy"] == {
        "policy_function": FollowNodes,
        "policy_kwargs": {
            "replicas": {"n1": 1, "n2": 2},
            "joining": 1,
            "resource": "GPU",
            "amount": 2,
        },
    }
    policy = FollowNodes(**scaling["policy"]["policy_kwargs"])
    assert (
        policy.count({"n1": {"GPU": 2}, "n2": {"GPU": 2}, "new": {"GPU": 2}, "small": {"GPU": 1}}) == 4
    )


def test_on_cpus_nodes_are_followed_by_their_cores() -> None:
    found = options_of(make_recipe({"a": 4}), cards_of_nodes(CPU, 1), "a", follow_nodes=True)
    arguments = found["autoscaling_config"]["policy"]["policy_kwargs"]
    assert (arguments["resource"], arguments["amount"]) == ("CPU", 8)


def test_nodes_without_the_model_count_for_nothing() -> None:
    recipe = make_recipe({"a": 30, "b": 30}, a={"replicas": 1})
    cards = [*cards_of_nodes(GPU, 2), replace(GPU, node="small", total_bytes=20 << 30)]
    found = options_of(recipe, cards, "b", follow_nodes=True)
    assert found["autoscaling_config"]["policy"]["policy_kwargs"]["replicas"] == {"n1": 1, "small": 0}


def test_a_range_of_replicas_follows_the_load() -> None:
    recipe = make_recipe({"a": 30}, a={"replicas": {"min": 1, "max": 5}, "concurrency": 10})
    for follow_nodes in (True, False):
        found = options_of(recipe, cards_of_nodes(GPU, 2), "a", follow_nodes=follow_nodes)
        scaling = found["autoscaling_config"]
        assert scaling == {
            "min_replicas": 1,
            "initial_replicas": 2,
            "max_replicas": 5,
            "policy": {"policy_function": FollowLoad, "policy_kwargs": {"target": 8}},
            "metrics_interval_s": options.REPORT_S,
            "look_back_period_s": options.LOOK_BACK_S,
            "upscale_delay_s": options.UPSCALE_S,
            "downscale_delay_s": options.DOWNSCALE_S,
        }
        assert FollowLoad(**scaling["policy"]["policy_kwargs"]).count(17) == 3


def test_only_a_model_that_follows_the_load_reports_its_calls_often() -> None:
    recipe = make_recipe({"a": 30, "b": 30}, b={"replicas": {"min": 1, "max": 2}})
    cards = cards_of_nodes(GPU, 2)
    nodes, load = (
        options_of(recipe, cards, name, follow_nodes=True)["autoscaling_config"] for name in "ab"
    )
    assert load["metrics_interval_s"] <= 2
    assert nodes["metrics_interval_s"] >= 3600
    for scaling in (nodes, load):  # Serve's record of the calls would be empty otherwise
        assert scaling["look_back_period_s"] > scaling["metrics_interval_s"]


@pytest.mark.parametrize("replicas", [2, {"min": 2, "max": 2}])
def test_a_fixed_number_of_replicas_is_not_scaled(replicas: Any) -> None:
    recipe = make_recipe({"a": 30}, a={"replicas": replicas})
    found = options_of(recipe, cards_of_nodes(GPU, 3), "a", follow_nodes=True)
    assert found["num_replicas"] == 2
    assert "autoscaling_config" not in found


def test_a_replica_is_watched_and_its_queue_has_room_for_an_uneven_load() -> None:
    found = options_of(make_recipe({"a": 30}), cards_of_nodes(GPU, 1), "a")
    assert replica_queue(7) == 14
    assert found["health_check_period_s"] == options.HEALTH_S


def test_a_replica_that_stops_may_drain_before_serve_kills_it_and_an_idle_one_stops_at_once() -> None:
    model = options_of(make_recipe({"a": 30}), cards_of_nodes(GPU, 1), "a")
    for found in (model, ingress_options(1, 1, None, 40)):
        assert found["graceful_shutdown_timeout_s"] == 40 + options.END_S
        assert found["graceful_shutdown_wait_loop_s"] <= 0.1


def test_a_card_has_no_room_for_one_replica_more() -> None:
    found = options_of(make_recipe({"a": 30}), cards_of_nodes(GPU, 1), "a")
    assert "max_surge_percent" not in found


@pytest.mark.parametrize(("nodes", "on_a_node"), [(1, 3), (2, 2), (3, 1), (9, 1)])
def test_ingresses_are_spread_evenly_over_the_nodes(nodes: int, on_a_node: int) -> None:
    found = ingress_options(3, nodes, "head", 30)
    assert (found["num_replicas"], found["max_replicas_per_node"]) == (3, on_a_node)
    assert "max_surge_percent" not in found, "Serve would wait for ever for a node for one more"
    assert found["ray_actor_options"] == {"num_cpus": 0}


def test_one_ingress_is_on_the_node_whose_address_its_clients_know() -> None:
    found = ingress_options(1, 4, "head", 30)
    labelled = {"num_cpus": 0, "label_selector": {options.NODE_LABEL: "head"}}
    assert found["ray_actor_options"] == labelled
    assert ingress_options(1, 4, None, 30)["ray_actor_options"] == {"num_cpus": 0}
    assert "max_replicas_per_node" not in found
    assert found["max_surge_percent"] == options.ONE_MORE
