"""What a RayService of KubeRay may say, strictly: an unknown key is an error, where the API server of
Kubernetes drops it in silence.

KubeRay's own keys are those of its reference of ray.io/v1 as of 1.6 (docs.ray.io, "KubeRay CRD API
reference"), less what is deprecated or no user's to set. No package holds the CRD itself. What KubeRay
takes from Kubernetes, such as the templates of pods, is held to Kubernetes' own OpenAPI schemas.
"""

from typing import Annotated, Any, Literal

import kubernetes_validate
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

KUBERNETES = "1.31"
"""Not the newest release, so that the manifest suits clusters that are behind."""


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
    return service


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
    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)
    namespace: str | None = None
    labels: Texts = {}
    annotations: Texts = {}


class HeadGroup(Keys):
    template: PodTemplate
    rayStartParams: Texts  # noqa: N815
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"] | None = None  # noqa: N815
    headService: Service | None = None  # noqa: N815
    enableIngress: bool = False  # noqa: N815
    resources: Texts = {}
    labels: Texts = {}


class WorkerGroup(Keys):
    template: PodTemplate
    groupName: str = Field(min_length=1)  # noqa: N815
    rayStartParams: Texts  # noqa: N815
    replicas: Count = 0
    minReplicas: Count  # noqa: N815
    maxReplicas: Count  # noqa: N815
    numOfHosts: Count = 1  # noqa: N815
    idleTimeoutSeconds: Count | None = None  # noqa: N815
    resources: Texts = {}
    labels: Texts = {}


class Cluster(Keys):
    headGroupSpec: HeadGroup  # noqa: N815
    workerGroupSpecs: list[WorkerGroup] = []  # noqa: N815
    rayVersion: str | None = None  # noqa: N815
    authOptions: AuthOptions | None = None  # noqa: N815
    enableInTreeAutoscaling: bool = False  # noqa: N815
    headServiceAnnotations: Texts = {}  # noqa: N815
    suspend: bool = False


class UpgradeStrategy(Keys):
    type: Literal["NewCluster", "NewClusterWithIncrementalUpgrade", "None"]


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
