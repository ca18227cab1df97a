"""The files for clusters in configs/clusters/ are what Kubernetes, KubeRay and Ray understand.

Ray itself is not imported here; what needs it is in `tests/ray/test_serve_files.py`.
"""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from cluster.ray_runtime import ENVIRONMENT, OBJECT_STORE_BYTES, REPLICA_ENVIRONMENT
from tests.unit.kuberay import RayService

CONFIGS = Path(__file__).parents[2] / "configs"
RAY = metadata.distribution("ray")
RAY_UP_SCHEMA = json.loads(
    Path(str(RAY.locate_file("ray/autoscaler/ray-schema.json"))).read_text("utf-8")
)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def manifest() -> Any:
    return read(CONFIGS / "clusters" / "kuberay.yaml")


def ray_up() -> Any:
    return read(CONFIGS / "clusters" / "ray_up.yaml")


def ray_env() -> dict[str, str]:
    lines = (CONFIGS / "clusters" / "ray.env").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def pods(document: Any) -> list[Any]:
    cluster = document["spec"]["rayClusterConfig"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *groups(document))]


def groups(document: Any) -> Any:
    return document["spec"]["rayClusterConfig"]["workerGroupSpecs"]


def test_the_manifest_is_a_ray_service() -> None:
    RayService.model_validate(manifest())


def above(document: Any, path: str) -> tuple[Any, str]:
    """The mapping that a path, as `a.0.b`, leads to the last key of, and that key."""
    *way, last = path.split(".")
    for step in way:
        document = document[int(step) if isinstance(document, list) else step]
    return document, last


def misspelled(path: str) -> Any:
    """The manifest with an s behind one key."""
    document = manifest()
    place, key = above(document, path)
    place[f"{key}s"] = place.pop(key)
    return document


def changed(path: str, value: Any) -> Any:
    """The manifest with another value at one place."""
    document = manifest()
    place, key = above(document, path)
    place[key] = value
    return document


HEAD = "spec.rayClusterConfig.headGroupSpec"
WORKERS = "spec.rayClusterConfig.workerGroupSpecs.0"


@pytest.mark.parametrize(
    "path",
    [
        "metadata.name",
        "spec.serveConfigV2",
        "spec.upgradeStrategy.type",
        "spec.rayClusterConfig.authOptions.mode",
        f"{HEAD}.rayStartParams",
        f"{HEAD}.template.spec.containers.0.env.0.valueFrom.secretKeyRef.key",
        f"{WORKERS}.maxReplicas",
        f"{WORKERS}.template.spec.tolerations.0.effect",
        f"{WORKERS}.template.spec.containers.0.image",
        f"{WORKERS}.template.spec.containers.0.resources.limits",
        f"{WORKERS}.template.spec.volumes.0.persistentVolumeClaim.claimName",
    ],
)
def test_a_misspelled_key_is_no_ray_service(path: str) -> None:
    with pytest.raises(ValidationError) as refused:
        RayService.model_validate(misspelled(path))
    said = [f"{error['loc']} {error['msg']}" for error in refused.value.errors()]
    assert path.split(".")[-1] in "".join(said)


@pytest.mark.parametrize(
    ("key", "value"), [("num-cpus", 0), ("num-cpus", None)], ids=["a number", "nothing"]
)
def test_parameters_of_ray_start_are_texts(key: str, value: object) -> None:
    document = manifest()
    document["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"][key] = value
    with pytest.raises(ValidationError, match=key):
        RayService.model_validate(document)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("metadata.name", "7moa", "pattern"),
        ("metadata.name", "s" * 48, "at most 47"),
        ("spec.rayClusterConfig.rayVersion", "2.51.2", "tokens need 2.52.0"),
        ("spec.upgradeStrategy.type", "Recreate", "'NewCluster' or 'None'"),
        (f"{HEAD}.resources", {"CPU": "0"}, "both say num-cpus"),
        (f"{HEAD}.headService", {"metadata": {"name": "head"}}, "KubeRay names the service"),
        (f"{WORKERS}.rayStartParams.labels", "a=b", "labels of the group"),
        (f"{WORKERS}.template.spec.containers", None, "containers"),
    ],
)
def test_what_kuberays_operator_refuses_is_no_ray_service(path: str, value: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RayService.model_validate(changed(path, value))


def test_the_manifest_serves_the_file_for_several_nodes_by_serves_own_proxies() -> None:
    served = yaml.safe_load(manifest()["spec"]["serveConfigV2"])
    file = read(CONFIGS / "serve" / "several_nodes.yaml")
    arguments = file["applications"][0]["args"]
    # KubeRay sends requests only to pods on which Serve's proxy says that it is healthy.
    file |= {
        "proxy_location": "EveryNode",
        "http_options": {"host": arguments.pop("host"), "port": arguments.pop("port")},
    }
    assert served == file


def test_the_plan_waits_for_no_more_gpus_than_the_fewest_pods_bring() -> None:
    (application,) = yaml.safe_load(manifest()["spec"]["serveConfigV2"])["applications"]
    (group,) = groups(manifest())
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    brought = group["minReplicas"] * int(limits["nvidia.com/gpu"])
    assert 1 <= application["args"]["min_gpus"] <= brought


def test_the_manifest_has_the_ray_that_is_installed_and_its_token() -> None:
    cluster = manifest()["spec"]["rayClusterConfig"]
    assert cluster["rayVersion"] == RAY.version
    assert cluster["authOptions"]["mode"] == "token"


def test_every_process_of_a_cluster_gets_rays_settings() -> None:
    settings = ray_env()
    assert settings.pop("RAY_AUTH_MODE") == "token"  # by authOptions in the manifest
    assert settings.items() <= (ENVIRONMENT | REPLICA_ENVIRONMENT).items()
    found_dead = {name for name in ENVIRONMENT if "health_check" in name.lower()}
    assert settings.keys() >= REPLICA_ENVIRONMENT.keys() | found_dead | {"RAY_worker_niceness"}
    for pod in pods(manifest()):
        given = {v["name"]: v.get("value") for v in pod["containers"][0]["env"]}
        assert settings.items() <= given.items()
    commands = ray_up()["head_start_ray_commands"], ray_up()["worker_start_ray_commands"]
    for _stop, start in commands:
        assert "set -a && . configs/clusters/ray.env" in start
        assert f"--object-store-memory={OBJECT_STORE_BYTES}" in start


def test_no_key_stands_in_the_manifest_and_every_pod_has_it_from_the_secret() -> None:
    # The recipe is planned on any node, and an ingress may start on any.
    for pod in pods(manifest()):
        (variable,) = [v for v in pod["containers"][0]["env"] if v["name"] == "SLIMMOA_API_KEYS"]
        assert variable.keys() == {"name", "valueFrom"}
        assert not variable["valueFrom"]["secretKeyRef"].get("optional", False)


def test_the_pods_have_the_object_store_in_shared_memory_and_weights_that_last() -> None:
    cluster = manifest()["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert group["rayStartParams"]["object-store-memory"] == str(OBJECT_STORE_BYTES)
        pod = group["template"]["spec"]
        kinds = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {m["mountPath"]: kinds[m["name"]] for m in pod["containers"][0]["volumeMounts"]}
        assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
        (claim,) = [path for path, volume in mounts.items() if "persistentVolumeClaim" in volume]
        values = {v["name"]: v.get("value", "") for v in pod["containers"][0]["env"]}
        assert all(values[name].startswith(f"{claim}/") for name in ("HF_HOME", "SLIMMOA_CACHE"))


def test_serve_listens_where_the_pods_say() -> None:
    port = yaml.safe_load(manifest()["spec"]["serveConfigV2"])["http_options"]["port"]
    for pod in pods(manifest()):
        named = {p["name"]: p["containerPort"] for p in pod["containers"][0]["ports"]}
        assert named["serve"] == port


def test_the_launchers_file_is_what_ray_up_takes() -> None:
    jsonschema.validate(ray_up(), RAY_UP_SCHEMA)


def test_a_misspelled_key_is_none_of_ray_ups() -> None:
    document = ray_up()
    document["setup_command"] = document.pop("setup_commands")
    with pytest.raises(jsonschema.ValidationError, match="setup_command"):
        jsonschema.validate(document, RAY_UP_SCHEMA)
