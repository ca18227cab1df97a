"""Bodies of requests, made from the types of the clients that are installed here.

    python -m benchmarks.faults.client_bodies --cases 10000 [--seed 1] > bodies.jsonl

Each line is a path and a body. The command needs no part of SlimMoA and only the package `openai`, so
it runs in an environment of clients, where it also finds the types of SOURCES. `benchmarks.faults.fuzz
--bodies FILE` sends what it writes.
"""

import argparse
import importlib
import json
from collections.abc import Iterator
from contextlib import suppress
from random import Random
from typing import Any

from benchmarks.faults.client_types import Walker
from benchmarks.faults.mutations import mutate

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
BODIES = {
    CHAT: "openai.types.chat.completion_create_params:CompletionCreateParamsStreaming",
    RESPONSES: "openai.types.responses.response_create_params:ResponseCreateParamsStreaming",
}
"""The types of whole requests."""
SOURCES: dict[str, tuple[str, ...]] = {
    CHAT: (
        "openai.types.chat:ChatCompletionMessageParam",
        "openai.types.chat:ChatCompletionMessage",
        "litellm.types.llms.openai:AllMessageValues",
        "litellm.types.utils:Message",
        "langchain_core.messages:AnyMessage",
        "pydantic_ai.messages:ModelMessage",
        "anthropic.types:MessageParam",
        "anthropic.types.beta:BetaMessageParam",
        "ollama:Message",
        "groq.types.chat:ChatCompletionMessageParam",
        "mistralai.client.models:AssistantMessage",
    ),
    RESPONSES: (
        "openai.types.responses:ResponseInputItemParam",
        "openai.types.responses:ResponseOutputItem",
        "openai.types.responses:EasyInputMessageParam",
    ),
}
"""The types of messages and items, by the path of requests that have them. Those of answers are there
too, because clients send back what they got."""
ROLES = {"ai": "assistant", "human": "user", "response": "assistant", "request": "user"}
"""The roles of messages that tell who speaks by another name and in another field."""
ANSWERABLE = ("temperature", "top_p", "seed", "stop", "metadata", "instructions", "store")
"""Parameters that a server can honour or ignore."""
KINDS = ("typed", "changed", "answerable")


def named(path: str) -> Any:
    """What a `module:name` names.

    Raises:
        ImportError, AttributeError: it is not installed here.
    """
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


class Bodies:
    """Draws bodies; the same ones for the same seed and the same clients.

    1. `typed`: as a client's types allow.
    2. `changed`: then changed in a few places.
    3. `answerable`: as 1 or 2, but only messages and a few parameters, so that most are answered.
    """

    def __init__(self, seed: int, models: tuple[str, ...]) -> None:
        self.random = Random(seed)
        self._models = models
        self._walker = Walker(self.random)
        self._requests = {path: named(name) for path, name in BODIES.items()}
        self._sources: dict[str, list[Any]] = {path: [] for path in SOURCES}
        self.used: list[str] = []
        """The types of messages that were found here."""
        for path, names in SOURCES.items():
            for name in names:
                with suppress(ImportError, AttributeError):
                    self._sources[path].append(named(name))
                    self.used.append(name)

    def draw(self, path: str, kind: str) -> dict[str, Any]:
        """One body."""
        drawn: dict[str, Any] = self._walker.value(self._requests[path])
        history = "messages" if path == CHAT else "input"
        if path == CHAT or isinstance(drawn.get(history), list):
            drawn[history] = self._history(path)
        if kind == "answerable":
            names = (
                "temperature",
                "top_p",
                "seed",
                "stop",
                "metadata",
                "instructions",
                "store",
                history,
            )
            drawn = {name: drawn[name] for name in names if name in drawn}
        drawn["model"] = self.random.choice(self._models)
        drawn["stream"] = self.random.random() < 0.5
        if kind == "changed" or (kind == "answerable" and self.random.random() < 0.3):
            mutate(self.random, drawn)
        return drawn

    def _history(self, path: str) -> list[Any]:
        """Messages of several clients, the last one as a rule a user's."""
        count = self.random.choice((0, 1, 1, 2, 4))
        kinds = [self.random.choice(self._sources[path]) for _ in range(count)]
        messages = [_with_role(self._walker.value(kind)) for kind in kinds]
        if self.random.random() < 0.8:
            messages.append({"role": "user", "content": self.random.choice(("hello", "and now?"))})
        return messages


def _with_role(message: Any) -> Any:
    """A message that has a role, which LangChain and pydantic-ai call otherwise."""
    if not isinstance(message, dict) or "role" in message:
        return message
    said = message.get("kind", message.get("type"))
    return {"role": ROLES[said], **message} if said in ROLES else message


def cases(bodies: Bodies, count: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """So many cases: path, kind and body. Two thirds are chat completions."""
    for n in range(count):
        path, kind = (CHAT, CHAT, RESPONSES)[n % 3], KINDS[n // 3 % 3]
        yield path, kind, bodies.draw(path, kind)


def main() -> None:
    """Write bodies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", default="mix,writer")
    options = parser.parse_args()
    bodies = Bodies(options.seed, tuple(options.models.split(",")))
    for path, kind, body in cases(bodies, options.cases):
        print(json.dumps([path, kind, body]))


if __name__ == "__main__":
    main()
