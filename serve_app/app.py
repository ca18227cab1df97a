"""The builder of the Ray Serve graph: one deployment per model, and the ingress, which calls them.

This is the only file that makes deployments. The classes of deployments are in `deployments.py`, their
options in `options.py`. There is no `from __future__ import annotations` here, because Serve reads the
annotation of the builder's argument.
"""

import logging
import os
from typing import Any, cast

import ray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from ray import serve
from ray.serve import Application

from actors.keeper.ray_keeper import own_uses
from actors.weights.lookup import fetch_weights
from cluster import ray_runtime
from cluster.cards.card import Card
from cluster.cards.detect import detect_cards
from cluster.cards.own_memory import without_own
from cluster.logs.line import VARIABLE, Shape, shape_of
from cluster.plan.by_node import replicas_by_node
from cluster.plan.placement import Placement
from cluster.plan.planner import plan_recipe
from cluster.plan.task import choose_cards
from configs.load import load
from configs.schema import Recipe
from serve_app.access.api_keys import read_environment_keys
from serve_app.assignment import ModelAssignments
from serve_app.deployment_names import INGRESS, deployment_name
from serve_app.deployments import AFTER_INGRESS_S, Ingress, ModelReplica
from serve_app.options import END_S, ingress_options, model_options, replica_queue
from serve_app.tracing.settings import tracing_variables

logger = logging.getLogger(__name__)


class BuildArgs(BaseModel):
    """Arguments of `build`: a recipe, either by file (`config=configs/tiny_cpu.yaml`) or in full."""

    model_config = ConfigDict(extra="forbid")

    config: str | None = None
    """Path of a recipe file, or the name of a preset."""
    recipe: Recipe | None = None
    """The recipe itself, as `slimmoa export` writes it."""
    min_gpus: int = Field(0, ge=0)
    """Plan only once the nodes have this many GPUs together, because nodes may join after the recipe
    was deployed. There is no limit to the wait."""
    follow_nodes: bool = True
    """Whether models get replicas as nodes join the cluster, and lose replicas as nodes leave. Without
    effect on models on no card, and on models for whose replicas the recipe sets a maximum."""
    app: str = ray_runtime.APP_NAME
    """Name of the Serve application. While it is replaced, the engines that it has so far do not count
    as memory of the cards that is taken."""
    replan: int = 0
    """Change the number to have the recipe planned and its keys read again: Serve builds an application
    anew only if its arguments differ."""
    ingresses: int = Field(1, ge=1)
    """Number of ingresses. Several are spread evenly over the nodes of the cluster at deployment."""
    ingress_node: str | None = None
    """Ray's ID of the node of a single ingress; by default the head node."""
    host: str | None = None
    """Interface on which each ingress listens by itself. Serve's proxies have to be off then
    (`proxy_location: Disabled`), because they would share the port. By default no ingress listens, and
    Serve's proxies answer, as the config file's `proxy_location` and `http_options` say."""
    port: int = Field(8000, ge=0, le=65_535)
    """Port on which the ingresses listen. Those of one node share it. Without effect without a host."""
    otlp_traces_endpoint: str | None = None
    """URL to which traces are sent, as http://127.0.0.1:4318/v1/traces; by default what the variables
    of OpenTelemetry say (docs/tracing.md)."""

    log: Shape | None = None
    """The shape of the log's lines: `text`, or `json`. By default that of the environment variable
    SLIMMOA_LOG where this function runs, and else `text`."""

    @model_validator(mode="after")
    def _has_one_recipe(self) -> "BuildArgs":
        if (self.config is None) == (self.recipe is None):
            raise ValueError("give either config=PATH or recipe={...}")
        return self


def build(args: BuildArgs) -> Application:
    """The graph of a recipe, for `serve run serve_app.app:build config=configs/X.yaml`.

    Raises:
        RecipeError: there is no such recipe, or the recipe has mistakes.
        UnknownCard: the recipe names a card that the catalog does not have.
        DoesNotFit: the models do not fit on the cards, not even if they take turns.
        WeightsError: weights that the plan depends on cannot be found, fetched or verified.
        KeysError: the API keys of the environment cannot be used.
        BadShape: the environment variable SLIMMOA_LOG has no shape of log lines.
        TracingError: the environment asks for traces, and they cannot be sent.
    """
    log = args.log or shape_of(os.environ.get(VARIABLE))
    recipe = args.recipe or load(args.config or "")
    tracing = tracing_variables(os.environ, args.otlp_traces_endpoint, "otlp_traces_endpoint")
    if args.min_gpus:
        ray_runtime.await_gpus(args.min_gpus)
    cards = choose_cards(recipe, _find_cards(args.app))
    for remark in dict.fromkeys(remark for card in cards for remark in card.remarks):
        logger.warning("%s", remark)
    plan = plan_recipe(recipe, cards, fetch_weights)
    nodes = ray_runtime.alive_nodes() if ray.is_initialized() else []
    across_nodes = args.follow_nodes or len(nodes) > 1
    models = {
        name: _build_model(
            name, recipe, plan, log, follow_nodes=args.follow_nodes, across_nodes=across_nodes
        )
        for name in recipe.models
    }
    ingress: Any = serve.deployment(
        serve.ingress()(Ingress),
        name=INGRESS,
        **ingress_options(
            args.ingresses,
            len(nodes) or 1,
            args.ingress_node or ray_runtime.head_node(nodes),
            recipe.limits.drain_s,
        ),
    )
    # The environment's keys are read here and passed on as hashes, because an ingress may start again
    # on a node where the variable is not set. The same holds for the variables of traces.
    listen = None if args.host is None else (args.host, args.port)
    bound = ingress.bind(recipe, models, read_environment_keys(), listen, log, tracing)
    return cast("Application", bound)


def _find_cards(app: str) -> list[Card]:
    """The cards of the cluster, or of this machine without a cluster. The engines of the application
    that this plan replaces do not count as memory that is taken."""
    if not ray.is_initialized():
        return detect_cards()
    return without_own(ray_runtime.cluster_cards(), own_uses(app))


def _build_model(
    name: str,
    recipe: Recipe,
    plan: Placement,
    log: Shape,
    *,
    follow_nodes: bool,
    across_nodes: bool,
) -> Application:
    """The deployment of one model; if the model takes a card, with the assignments of its replicas.

    Args:
        name: the model's name.
        recipe: the recipe.
        plan: the placement of all models.
        log: the shape of the log's lines.
        follow_nodes: see `BuildArgs`.
        across_nodes: whether callers on other nodes reach the replicas.
    """
    model, replicas = recipe.models[name], replicas_by_node(plan, name)
    queue = replica_queue(recipe.queue_limit(name))
    assignments = None
    if replicas is not None:
        handover_s = recipe.limits.drain_s + AFTER_INGRESS_S + END_S
        assignments = ModelAssignments(plan, replicas, recipe.cards.patience_s, handover_s, log)
    deployment: Any = serve.deployment(
        ModelReplica,
        name=deployment_name(name),
        **model_options(
            model,
            plan,
            replicas,
            drain_s=recipe.limits.drain_s,
            follow_nodes=follow_nodes,
        ),
    )
    bound = deployment.bind(
        name,
        model,
        queue,
        assignments,
        across_nodes=across_nodes,
        drain_s=recipe.limits.drain_s,
        log=log,
    )
    return cast("Application", bound)
