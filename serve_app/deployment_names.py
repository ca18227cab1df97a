"""The names of the deployments of an application."""

INGRESS = "ingress"
"""Name of the deployment that has the HTTP API."""
SAFE = str.maketrans({"/": "~", ":": "="})
"""Characters of models' names that no name of a file may have, and what stands for them. No model's
name has the latter, so two models never have one deployment."""


def deployment_name(model: str) -> str:
    """Name of a model's deployment. Serve makes names of actors and of log files from it."""
    return f"model-{model.translate(SAFE)}"
