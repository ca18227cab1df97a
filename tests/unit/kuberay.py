"""What a RayService of KubeRay may say, strictly: an unknown key is an error, where the API server of
Kubernetes drops it in silence.

KubeRay's own keys are those of its CRD (`helm-chart/kuberay-operator/crds/ray.io_rayservices.yaml` in
ray-project/kuberay at 02a80a6f, version v1, read there key by key; no package holds it), less what is
deprecated or no user's to set. The rules that a CRD cannot say are its operator's
(`ray-operator/controllers/ray/utils/validation.go` at 0074504f). What KubeRay takes from Kubernetes,
such as the templates of pods, is held to Kubernetes' own OpenAPI schemas.
"""

from typing import Annotated, Any, Literal, Self

import kubernetes_validate
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

KUBERNETES = "1.31"
"""Not the newest release, so that the manifest suits clusters that are behind."""
FIRST_WITH_TOKENS = "2.52.0"
RESOURCES = {"num-cpus", "num-gpus", "memory", "resources"}
"""Parameters of `ray start` that `resources` of a group says too."""


def check_resource(resource: dict[str, Any]) -> None:
    """Hold a resource of Kubernetes itself to its schema.

    Raises:
        ValueError: a key is unknown, missing, or has a value of the wrong kind; the message says which.
    """
    try:
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        raise ValueError(f"{'.'.join(map(str, error.path))}: {error.message}") from None


def _pod_template(template: dict[str, Any]) -> dict[str, Any]:
    check_resource({"apiVersion": "v1", "kind": "PodTemplate", "template": template})
    return template


def _service(service: dict[str, Any]) -> dict[str, Any]:
    check_resource({"apiVersion": "v1", "kind": "Service"} | service)
    if "name" in service.get("metadata", {}):
        raise ValueError("metadata.name: KubeRay names the service")
    return service


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


PodTemplate = Annotated[dict[str, Any], AfterValidator(_pod_template)]
Service = Annotated[dict[str, Any], AfterValidator(_service)]
Texts = dict[str, str]
Count = Annotated[int, Field(ge=0, lt=2**31)]


class Keys(BaseModel):
    """A mapping with these keys and no others; numbers are no texts."""

    model_config = ConfigDict(extra="forbid", strict=True)


class AuthOptions(Keys):
    mode: Literal["disabled", "token"] = "token"
    secretName: str | None = None  # noqa: N815


class Metadata(Keys):
    name: str = Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=47)
    namespace: str | None = None
    labels: Texts = {}
    annotations: Texts = {}


class Group(Keys):
    template: PodTemplate
    rayStartParams: Texts  # noqa: N815
    resources: Texts = {}
    labels: Texts = {}

    @model_validator(mode="after")
    def _said_once(self) -> Self:
        if self.resources and (twice := RESOURCES & self.rayStartParams.keys()):
            raise ValueError(f"resources and rayStartParams both say {', '.join(sorted(twice))}")
        if "labels" in self.rayStartParams:
            raise ValueError("rayStartParams.labels: labels of the group say them")
        return self


class HeadGroup(Group):
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"] | None = None  # noqa: N815
    headService: Service | None = None  # noqa: N815
    enableIngress: bool = False  # noqa: N815


class WorkerGroup(Group):
    groupName: str = Field(min_length=1)  # noqa: N815
    replicas: Count = 0
    minReplicas: Count  # noqa: N815
    maxReplicas: Count  # noqa: N815
    numOfHosts: Count = 1  # noqa: N815
    idleTimeoutSeconds: Count | None = None  # noqa: N815


class Cluster(Keys):
    headGroupSpec: HeadGroup  # noqa: N815
    workerGroupSpecs: list[WorkerGroup] = []  # noqa: N815
    rayVersion: str | None = None  # noqa: N815
    authOptions: AuthOptions | None = None  # noqa: N815
    enableInTreeAutoscaling: bool = False  # noqa: N815
    headServiceAnnotations: Texts = {}  # noqa: N815
    suspend: bool = False

    @model_validator(mode="after")
    def _knows_tokens(self) -> Self:
        mode = "disabled" if self.authOptions is None else self.authOptions.mode
        if mode == "token" and _numbers(self.rayVersion or "0") < _numbers(FIRST_WITH_TOKENS):
            raise ValueError(f"rayVersion: tokens need {FIRST_WITH_TOKENS} or newer")
        return self


class UpgradeStrategy(Keys):
    type: Literal["NewCluster", "None"]


class Spec(Keys):
    serveConfigV2: str  # noqa: N815
    rayClusterConfig: Cluster  # noqa: N815
    upgradeStrategy: UpgradeStrategy | None = None  # noqa: N815
    serveService: Service | None = None  # noqa: N815
    excludeHeadPodFromServeSvc: bool = False  # noqa: N815


class RayService(Keys):
    apiVersion: Literal["ray.io/v1"]  # noqa: N815
    kind: Literal["RayService"]
    metadata: Metadata
    spec: Spec
