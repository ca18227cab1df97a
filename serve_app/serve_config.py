"""A recipe as the content of a Serve config file. Knows nothing of Ray."""

from typing import Any

from cluster.ray_runtime import APP_NAME
from configs.schema import Recipe


def serve_config(recipe: Recipe, host: str, port: int, *, ingresses: int = 1) -> dict[str, Any]:
    """The content of a file for `serve run` or `serve deploy`. The file holds the whole recipe.

    With one ingress only the head node listens. With several ingresses, the head node and every node
    with a replica listen, so that a load balancer finds another node when a node is lost.

    Args:
        recipe: the recipe to serve.
        host: interface to listen on.
        port: port to listen on.
        ingresses: number of ingresses, the replicas that have the HTTP API.
    """
    settings = recipe.model_dump(mode="json", exclude_defaults=True)
    application: dict[str, Any] = {
        "name": APP_NAME,
        "route_prefix": "/",
        "import_path": "serve_app.app:build",
        "args": {"recipe": settings} | ({"ingresses": ingresses} if ingresses > 1 else {}),
    }
    return {
        "proxy_location": "HeadOnly" if ingresses == 1 else "EveryNode",
        "http_options": {"host": host, "port": port},
        "applications": [application],
    }
