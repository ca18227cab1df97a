"""Serves mixtures on a Ray of its own whose only card is a fake one, and prints what was found as JSON.

python -m tests.ray.card_life

PYTHONPATH has to hold `tests/ray/fake_card`, and FAKE_CARD has to be set. Each line is one scene: its
name, what it found, and what must never have happened. The scenes follow each other on one card.
"""

import functools
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import httpx

from cluster import ray_runtime
from configs.schema import Recipe
from tests.conftest import HOST, free_port
from tests.ray.fake_card.card import GIB, Card

WAIT_S = 60
TOTAL = 24 * GIB
POLL_S = 0.1
"""Seconds between two looks at what Ray and Serve tell nobody of."""
REJOIN_S = 5.0
"""Seconds within which replicas have joined a keeper that was restarted."""
DESKTOP = GIB
"""What another program holds of the card from the beginning."""


def recipe(**gib: float) -> Recipe:
    """A mixture of models of these sizes. The last one is the aggregator."""
    names = list(gib)
    models = {
        name: {"engine": "scripted", "weight_bytes": int(size * GIB), "concurrency": 2}
        for name, size in gib.items()
    }
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": models,
            "layers": [{"proposers": [{"model": name} for name in names[:-1]]}],
            "aggregator": {"model": names[-1]},
            "limits": {"drain_s": 60, "deadline_s": 50, "layer_deadline_s": 25},
            "cards": {"patience_s": 1},
        }
    )


class Scene:
    """A new card, and what is served on it."""

    def __init__(self) -> None:
        import ray

        actor: Any = ray.remote(Card)
        self.card = actor.options(
            name="card", namespace="fake", num_cpus=0, max_concurrency=1000
        ).remote(TOTAL)
        self.tell("neighbour", DESKTOP)
        self.port = free_port()
        self.threads = ThreadPoolExecutor(16)
        self.before: Any = None
        """The application as it was planned on the idle card."""

    def tell(self, method: str, *arguments: Any) -> Any:
        import ray

        return ray.get(getattr(self.card, method).remote(*arguments), timeout=WAIT_S)

    def wait_for(self, event: str, since: int = 0, times: int = 1) -> None:
        self.tell("wait_for", event, since, times)

    def count(self) -> int:
        """How many events there have been."""
        return len(self.tell("events"))

    def plan(self, mixture: Recipe, **more: Any) -> Any:
        """The application, built as `serve run` builds it now."""
        from serve_app.app import BuildArgs, build

        args = BuildArgs(recipe=mixture, follow_nodes=False, host=HOST, port=self.port, **more)
        return build(args)

    def deploy(self, mixture: Recipe, **more: Any) -> None:
        ray_runtime.deploy(self.plan(mixture, **more), ray_runtime.APP_NAME)

    def deploy_aside(self, mixture: Recipe) -> "Future[None]":
        built = self.plan(mixture)  # not in the thread: parts of Serve are not safe there
        return self.threads.submit(ray_runtime.deploy, built, ray_runtime.APP_NAME)

    def ask(self, model: str) -> str:
        """The answer of a model, or the status of the refusal."""
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
        url = f"http://{HOST}:{self.port}/v1/chat/completions"
        answer = httpx.post(url, json=body, timeout=WAIT_S)
        if answer.status_code != 200:
            return str(answer.status_code)
        return str(answer.json()["choices"][0]["message"]["content"])

    def ask_aside(self, model: str) -> "Future[str]":
        return self.threads.submit(self.ask, model)

    def ask_until_answered(self, model: str) -> str:
        while (answer := self.ask(model)) == "503":
            time.sleep(POLL_S)
        return answer

    def actors(self, part: str) -> list[str]:
        """The names of Serve's actors that have a part like this."""
        import ray

        names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
        return sorted(name for name in names if part in name)


def placement(application: Any) -> list[Any]:
    """The placement in an application that was built: each card with its slots."""
    handles = application._bound_deployment.init_args[1]
    assignments = [each._bound_deployment.init_args[3] for each in handles.values()]
    return [each.placement for each in assignments if each is not None]


FIRST = recipe(a=21, b=22)
"""Two models that take turns: the larger one leaves half a GiB of the card."""
SECOND = recipe(a=20, b=19, c=18)


def failed_starts(scene: Scene) -> dict[str, Any]:
    """The first two starts of a model fail."""
    scene.before = scene.plan(FIRST)
    scene.tell("fail", "b start", 2)
    scene.deploy(FIRST)
    events = scene.tell("events")
    return {"starts": events.count("b start"), "answers": [scene.ask(m) for m in ("a", "b", "mix")]}


def replan(scene: Scene) -> dict[str, Any]:
    """The recipe is deployed again with another `replan`, while it serves."""
    stop = threading.Event()
    answers: list[str] = []

    def go_on_asking() -> None:
        while not stop.is_set():
            answers.append(scene.ask("a"))

    asking = scene.threads.submit(go_on_asking)
    try:
        planned = scene.plan(FIRST, replan=1)
        scene.deploy(FIRST, replan=2)
    finally:
        stop.set()
    asking.result(WAIT_S)
    return {
        "answers": sorted(set(answers)),
        "same_plan": placement(planned) == placement(scene.before),
        "then": [scene.ask_until_answered(model) for model in ("a", "b", "mix")],
    }


def late_memory(scene: Scene) -> dict[str, Any]:
    """The memory of a model that falls asleep comes back ten seconds late."""
    scene.ask("a")
    scene.tell("late", True)
    since = scene.count()
    answer = scene.ask_aside("b")
    scene.wait_for("a sleep done", since)
    since = scene.count()
    scene.wait_for("memory", since, 20)  # ten seconds of readings
    too_early = [event for event in scene.tell("events", since) if event == "b wake"]
    scene.tell("late", False)
    return {"too_early": too_early, "answer": answer.result(WAIT_S)}


def neighbour(scene: Scene) -> dict[str, Any]:
    """Another program takes 2 GiB between a sleep and a wake, and gives them back later."""
    scene.ask("a")
    scene.tell("neighbour_after", "a sleep done", DESKTOP + 2 * GIB)
    since = scene.count()
    answer = scene.ask_aside("b")
    scene.wait_for("a sleep done", since)
    since = scene.count()
    scene.wait_for("memory", since, 4)
    too_early = [event for event in scene.tell("events", since) if event == "b wake"]
    scene.tell("neighbour", DESKTOP)
    return {
        "too_early": too_early,
        "answer": answer.result(WAIT_S),
        "then": [scene.ask(model) for model in ("a", "mix")],
    }


def dies_asleep(scene: Scene) -> dict[str, Any]:
    """The engine of a model that sleeps dies; then the model is asked."""
    scene.ask("a")
    since = scene.count()
    scene.tell("breaks", "b")
    scene.wait_for("b start done", since)
    since = scene.count()
    answers = [scene.ask(model) for model in ("b", "a")]
    starts = [event for event in scene.tell("events", since) if event.endswith(" start")]
    return {"answers": answers, "starts_in_a_users_turn": starts}


def redeploy(scene: Scene) -> dict[str, Any]:
    """Another recipe takes the place of the one that runs, while an answer of a is in work. The old
    replica of b is killed, so that the new one comes while the old engine of a holds the card. Then the
    keepers of both plans are killed."""
    import ray

    from actors.keeper.ray_keeper import keepers

    scene.ask("a")
    scene.tell("hold", "a call")
    since = scene.count()
    answer = scene.ask_aside("a")
    scene.wait_for("a call", since)
    (old_b,) = scene.actors("#model-b#")
    old = set(keepers(ray_runtime.APP_NAME))
    deploying = scene.deploy_aside(SECOND)
    while len(scene.actors("#ingress#")) < 2:
        # Until then Serve would replace the old replica by another old one.
        if deploying.done():
            deploying.result()
        time.sleep(POLL_S)
    ray.kill(ray.get_actor(old_b, namespace="serve"))
    while not (found := set(keepers(ray_runtime.APP_NAME)) - old):
        time.sleep(POLL_S)  # until the new replica of b has made its keeper
    readings = scene.count()
    for keeper in keepers(ray_runtime.APP_NAME).values():
        ray.kill(keeper, no_restart=False)
    with suppress(TimeoutError):
        deploying.result(REJOIN_S)  # the new replica asks for the card again and again
    started = [event for event in scene.tell("events", since) if event.endswith(" start")]
    scene.tell("release", "a call")
    deploying.result(WAIT_S)
    events = scene.tell("events", readings)
    return {
        "new_keepers": len(found),
        "answer": answer.result(WAIT_S),
        "started_while_it_was_in_work": started,
        "first_to_happen_then": next(e for e in events if e.endswith((" start", " stop"))),
        "then": [scene.ask_until_answered(model) for model in ("a", "b", "c", "mix")],
    }


SCENES: tuple[Callable[[Scene], dict[str, Any]], ...] = (
    failed_starts,
    replan,
    late_memory,
    neighbour,
    dies_asleep,
    redeploy,
)
"""In this order, one after the other on the same card."""


@contextmanager
def ray_with_a_gpu() -> Iterator[None]:
    ray_runtime.set_environment()
    import ray

    # `connect` asks for no GPUs, because Ray finds them by itself.
    ray.init = functools.partial(ray.init, num_gpus=1, num_cpus=2)
    ray_runtime.connect(None, verbose=False)
    from ray import serve

    serve.start(proxy_location="Disabled")
    try:
        yield
    finally:
        ray_runtime.disconnect(None, local=True)


def main() -> None:
    assert "FAKE_CARD" in os.environ
    with ray_with_a_gpu():
        scene = Scene()
        for play in SCENES:
            began = time.monotonic()
            try:
                found = play(scene)
            except Exception:
                print(json.dumps({"scene": play.__name__, "error": traceback.format_exc()}))
                print("\n".join(scene.tell("events")), file=sys.stderr)
                break
            took_s = round(time.monotonic() - began, 1)
            line = {"scene": play.__name__, "took_s": took_s, **found, **scene.tell("outcome")}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
