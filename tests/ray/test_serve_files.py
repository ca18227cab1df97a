"""The Serve config files in configs/serve/, and the cluster launcher's, as Ray itself reads them; and
what the graph makes of a cluster, without one."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import ray
import yaml
from ray import serve
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from cluster import ray_runtime
from cluster.cards.detect import detect_cards
from configs.load import load, presets
from serve_app import app, deployments
from serve_app.app import BuildArgs, build
from serve_app.serve_config import serve_config
from serve_app.tracing.settings import TracingError

CONFIGS = Path(__file__).parents[2] / "configs"
SERVE = sorted((CONFIGS / "serve").glob("*.yaml"))
INGRESSES = {"cpu": 1, "one_card": 1, "one_node": 2, "several_nodes": 2}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


@pytest.mark.parametrize("file", SERVE, ids=lambda file: file.stem)
def test_a_serve_file_is_what_export_writes_but_for_the_recipe_by_name(file: Path) -> None:
    document = read(file)
    ServeDeploySchema.model_validate(document)
    (application,) = document["applications"]
    arguments = BuildArgs.model_validate(application["args"])
    assert arguments.config in presets()
    assert arguments.host is not None
    written = serve_config(
        load(arguments.config), arguments.host, arguments.port, ingresses=INGRESSES[file.stem]
    )
    exported = BuildArgs.model_validate(written["applications"][0]["args"])
    for given in (exported, arguments):
        assert (given.host, given.port, given.ingresses) == (
            arguments.host,
            8000,
            INGRESSES[file.stem],
        )
    written["applications"][0]["args"] = application["args"]
    assert document == written  # Serve's own schema lets unknown keys pass


def test_one_recipe_serves_one_card_several_and_several_nodes() -> None:
    arguments = [
        read(CONFIGS / "serve" / f"{name}.yaml")["applications"][0]["args"] for name in INGRESSES
    ]
    assert {argument["config"] for argument in arguments[1:]} == {"slim_moa_a100"}


def test_only_the_file_for_a_load_balancer_listens_to_others() -> None:
    hosts = {file.stem: read(file)["applications"][0]["args"]["host"] for file in SERVE}
    assert hosts == dict.fromkeys(INGRESSES, "127.0.0.1") | {"several_nodes": "0.0.0.0"}
    assert not load("slim_moa_a100").access.open  # so that whoever has no key gets 401 or 403


def test_each_model_is_a_deployment_with_what_the_plan_gives_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("SLIMMOA_CARDS", "A100-80GB,A100-80GB")
    ingress: Any = build(BuildArgs(config="slim_moa_a100"))._bound_deployment
    _, models, *_ = ingress.init_args
    found = {name: each._bound_deployment for name, each in models.items()}
    assert {name: each.name for name, each in found.items()} == {n: f"model-{n}" for n in found}
    gpus = {name: each.ray_actor_options["num_gpus"] for name, each in found.items()}
    assert gpus == dict.fromkeys(found, 0.3333)  # one of the two cards has three replicas
    for name, each in found.items():
        _, _, _, assignments = each.init_args
        assert assignments.replicas.all == assignments.placement.replicas(name)
        scaling = each._deployment_config.autoscaling_config
        assert scaling.initial_replicas == len(assignments.replicas.all)
        assert scaling.policy.policy_kwargs["resource"] == "GPU"


def test_ingresses_are_counted_by_the_nodes_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_runtime, "alive_nodes", lambda: [{}] * 2)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray_runtime, "cluster_cards", detect_cards)
    monkeypatch.setattr(app, "own_uses", lambda _app: [])
    ingress = build(BuildArgs(config="scripted", ingresses=3))._bound_deployment
    assert ingress.num_replicas == 3
    assert ingress._replica_config.max_replicas_per_node == 2


def test_a_model_of_which_no_replica_runs_is_missing_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing_runs(_app: str, models: Any, notice: Any, count_ingresses: Any) -> None:
        count_ingresses(1)
        for model in models:
            notice(model, {})
        await asyncio.Event().wait()

    monkeypatch.setattr(deployments, "watch_models", nothing_runs)
    context = SimpleNamespace(app_name="slimmoa", rank=SimpleNamespace(rank=0))
    monkeypatch.setattr(serve, "get_replica_context", lambda: context)
    monkeypatch.setattr(
        ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "a node")
    )
    recipe = load("scripted")
    messages = [{"role": "user", "content": "hello"}]

    async def refused() -> dict[str, httpx.Response]:
        ingress: Any = object.__new__(deployments.Ingress)
        await ingress.__init__(recipe, dict.fromkeys(recipe.models), (), None)
        api = httpx.ASGITransport(ingress.__serve_build_asgi_app__(), client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=api, base_url="http://127.0.0.1") as client:
            answers = {}
            for name in [*recipe.models, recipe.name]:
                body = {"model": name, "messages": messages, "stream": name != recipe.name}
                answers[name] = await client.post("/v1/chat/completions", json=body)
        await ingress.__del__()
        return answers

    answers = asyncio.run(refused())
    whole = answers.pop(recipe.name)
    for answer in answers.values():
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_replica")
    assert (whole.status_code, whole.json()["error"]["code"]) == (503, "quorum_not_met")
    assert "no replica of model" in whole.text


def test_a_plan_waits_for_the_nodes_that_bring_its_gpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head, one, two = ({"Resources": {"CPU": 4.0} | more} for more in ({}, {"GPU": 1.0}, {"GPU": 2.0}))
    seen = iter([[head], [head], [head, one], [head, one, two]])
    monkeypatch.setattr(ray_runtime, "alive_nodes", lambda: next(seen))
    monkeypatch.setattr(ray_runtime, "JOIN_POLL_S", 0)
    said: list[str] = []

    @contextmanager
    def tell(what: Callable[[], str], _say: Callable[[str], None]) -> Iterator[None]:
        said.append(what())
        yield
        said.append(what())

    monkeypatch.setattr(ray_runtime, "tell_waiting", tell)
    ray_runtime.await_gpus(2)
    assert next(seen, None) is None
    assert said == [f"nodes to join, which offer {found} of 2 GPUs," for found in (0, 3)]


def test_the_launcher_keeps_every_worker_that_its_file_names() -> None:
    document = read(CONFIGS / "clusters" / "ray_up.yaml")
    prepared = prepare_config(document)
    validate_config(prepared)
    workers = prepared["available_node_types"]["local.cluster.node"]
    count = len(document["provider"]["worker_ips"])
    assert (workers["min_workers"], workers["max_workers"]) == (count, count)


def test_the_builder_brings_the_variables_of_traces_to_the_ingress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for asked in (None, {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_HEADERS": "a=secret"}):
        for name, value in (asked or {}).items():
            monkeypatch.setenv(name, value)
        ingress: Any = build(BuildArgs(config="tiny_cpu"))._bound_deployment
        assert ingress.init_args[-1] == asked
        assert "secret" not in repr(ingress)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(TracingError, match="OTEL_TRACES_EXPORTER is 'zipkin'"):
        build(BuildArgs(config="tiny_cpu"))
