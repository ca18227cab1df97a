"""One real Ray and Serve for all tests that need them; each module serves its own recipe on it."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from actors.replica import ReplicaStats
from benchmarks.shared.harness import free_port as free_port
from cluster import ray_runtime
from configs.schema import Recipe

HOST = "127.0.0.1"


def user_environment(**more: str) -> dict[str, str]:
    """The environment of a user's shell, for commands under test: without what Ray has set in this
    process when it was started here, which commands would inherit."""
    own = ("RAY_", "PYTEST", "SLIMMOA_API")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)} | more


@dataclass(frozen=True)
class Endpoint:
    """A served recipe, and a look at its engines from behind."""

    recipe: Recipe
    base_url: str

    # Untyped, because answers carry a `moa` field that OpenAI's types do not have.
    def client(self) -> Any:
        return OpenAI(base_url=f"{self.base_url}/v1", api_key="none", max_retries=0)

    def async_client(self) -> Any:
        return AsyncOpenAI(base_url=f"{self.base_url}/v1", api_key="none", max_retries=0)

    def stats(self, model: str) -> ReplicaStats:
        """What the model's engine has done, from the replica itself."""
        from ray import serve

        handle: Any = serve.get_deployment_handle(f"model-{model}", "slimmoa")
        stats: ReplicaStats = handle.stats.remote().result(timeout_s=5)
        return stats


Serving = Callable[[Recipe], AbstractContextManager[Endpoint]]


@pytest.fixture(scope="session")
def http_port() -> Iterator[int]:
    """Ray, started once for all tests, and a port for the applications, which come one at a time."""
    port = free_port()
    ray_runtime.connect(None, verbose=False)
    yield port
    ray_runtime.disconnect(ray_runtime.APP_NAME, local=True)


@pytest.fixture(scope="session")
def serving(http_port: int) -> Serving:
    """A context manager that serves a recipe, one at a time."""
    from serve_app.local_servers import Announcement

    announced: list[Announcement] = []

    @contextmanager
    def serve_recipe(recipe: Recipe) -> Iterator[Endpoint]:
        from ray import serve

        from serve_app.app import BuildArgs, build
        from serve_app.local_servers import LocalServer

        with ExitStack() as stack:
            # As `slimmoa serve` does, so that `slimmoa bench` finds the application by itself. A recipe
            # that is served within the block of another one takes its place.
            if announced:
                announced.pop().remove()
            announcement = Announcement(HOST, http_port)
            announced.append(announcement)

            def withdraw() -> None:
                if announcement in announced:
                    announced.pop().remove()

            stack.callback(withdraw)
            graph = build(BuildArgs(recipe=recipe, follow_nodes=False, host=HOST, port=http_port))
            ray_runtime.deploy(graph, ray_runtime.APP_NAME)
            stack.callback(serve.delete, ray_runtime.APP_NAME)
            cluster = ray_runtime.this_cluster()
            announcement.ready(LocalServer(recipe, ray_runtime.APP_NAME, cluster))
            yield Endpoint(recipe, f"http://{HOST}:{http_port}")

    return serve_recipe
