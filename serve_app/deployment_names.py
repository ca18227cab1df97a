"""The names of the deployments of an application."""

INGRESS = "ingress"
"""Name of the deployment that has the HTTP API."""


def deployment_name(model: str) -> str:
    """Name of a model's deployment."""
    return f"model-{model}"
