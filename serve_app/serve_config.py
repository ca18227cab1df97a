"""A recipe as the content of a Serve config file. Knows nothing of Ray."""

from typing import Any

from cluster.logs.line import Shape
from cluster.ray_runtime import APP_NAME
from configs.schema import Recipe


def serve_config(
    recipe: Recipe, host: str, port: int, *, ingresses: int = 1, log: Shape | None = None
) -> dict[str, Any]:
    """The content of a file for `serve run` or `serve deploy`. The file holds the whole recipe.

    Each ingress listens by itself, and Serve's proxies are off. With several ingresses, each node that
    has one listens, so that a load balancer finds another node when a node is lost.

    Args:
        recipe: the recipe to serve.
        host: interface to listen on.
        port: port to listen on.
        ingresses: number of ingresses, the replicas that have the HTTP API.
        log: the shape of the log's lines; None for that of the environment where it is deployed.
    """
    args: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
        "host": host,
        "port": port,
    }
    if ingresses > 1:
        args["ingresses"] = ingresses
    if log is not None:
        args["log"] = log
    application = {
        "name": APP_NAME,
        "route_prefix": "/",
        "import_path": "serve_app.app:build",
        "args": args,
    }
    return {"proxy_location": "Disabled", "applications": [application]}
