"""Objects and tools, as clients ask for them and read them, from models that write what a grammar
would have them write. `test_tools_real.py` asks real models the same."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from actors.engine import NONE, Delta, Message, collect_answer
from actors.replica import ReplicaStats
from actors.text.tool_prompt import call_text
from configs.schema import Recipe, Sampling
from serve_app.http.api import create_api
from tests.clients.conftest import HERE, python_with
from tests.unit.serve_app.conftest import listening

pytestmark = pytest.mark.timeout(600)  # installing the clients for the first time takes minutes

LLAMACPP = {"engine": "llamacpp", "context_tokens": 8192, "weights": [{"path": "/m.gguf"}]}
RECIPE = {
    "name": "mix",
    "models": {"one": {"engine": "scripted"}, "writer": LLAMACPP},
    "layers": [{"proposers": [{"model": "one"}]}],
    "aggregator": {"model": "writer"},
}


def value(schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """A value that fits a schema, as far as clients' schemas go."""
    if "$ref" in schema:
        return value(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return value(schema["anyOf"][0], root)
    kind = schema.get("type", "string")
    if kind == "object":
        return {name: value(each, root) for name, each in schema.get("properties", {}).items()}
    plain: dict[str, Any] = {"string": "Paris", "integer": 18, "number": 1.5, "boolean": True}
    return plain.get(kind, [])


class Obedient:
    """Models of which the writer calls the first tool, once in a conversation, or fills the form."""

    async def stream(
        self, _model: str, messages: Sequence[Message], sampling: Sampling, _streamed: bool = True
    ) -> AsyncIterator[Delta]:
        use, structure = (sampling.extra.get(name) for name in ("tool_use", "structure"))
        text = "It is mild."
        if use and "<tool_result>" not in messages[-1]["content"]:
            schema = use["tools"][0]["parameters"]
            text = call_text(use["tools"][0]["name"], json.dumps(value(schema, schema)))
        elif structure:
            schema = structure.get("json_schema", {"type": "object"})
            text = json.dumps(value(schema, schema))
        for n in range(0, len(text), 4):
            yield Delta(text=text[n : n + 4])
        yield Delta(finish_reason="stop", prompt_tokens=9, completion_tokens=8)

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        return await collect_answer(self.stream(model, messages, sampling))

    async def count_tokens(
        self, _model: str, messages: Sequence[Message], _template: Mapping[str, Any] = NONE
    ) -> int:
        return sum(len(message["content"].split()) for message in messages)

    async def token_ends(self, _model: str, texts: Sequence[str]) -> list[list[int]]:
        return [list(range(1, len(text) + 1)) for text in texts]

    async def is_alive(self, _model: str) -> bool:
        return True

    async def stats(self, _model: str) -> ReplicaStats:
        return ReplicaStats(0, 0, 0, 0, 0, 0, 0)


async def report(program: str, requirements: str) -> Any:
    python = await asyncio.to_thread(python_with, requirements)
    async with listening(create_api(Recipe.model_validate(RECIPE), Obedient())) as url:
        cases = json.dumps({"url": f"{url}/v1", "name": "mix"})
        settings = os.environ | {"LANGSMITH_TRACING": "false", "CASES": cases}
        command = [python, str(HERE / f"tools_{program}.py")]
        done = await asyncio.to_thread(
            subprocess.run, command, env=settings, capture_output=True, text=True, timeout=150
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


async def test_openai() -> None:
    got = await report("openai", "requirements")
    assert got.pop("pieces") > 1
    assert got == {
        "form": 20,
        "forced": ["Paris"],
        "forced finish": "tool_calls",
        "told": "It is mild.",
        "streamed": ["Paris"],
        "free": ['{"town": "Paris"}'],
        "free text": None,
        "item": ["function_call", "Weather", {"town": "Paris"}],
        "parsed": "Paris",
    }


async def test_langchain() -> None:
    assert await report("langchain", "requirements") == {
        "shapes": {"json_schema": "Weather", "function_calling": "Weather"},
        "called": [["weather", {"town": "Paris"}]],
        "results": ["18 degrees in Paris"],
        "told": "It is mild.",
        "streamed": [["weather", {"town": "Paris"}]],
    }


@pytest.mark.slow
async def test_instructor() -> None:
    made = {"town": "Paris", "degrees": 18}
    got = await report("instructor", "requirements-instructor")
    assert got == {"TOOLS": made, "JSON_SCHEMA": made}


@pytest.mark.slow
async def test_pydantic_ai() -> None:
    made = {"town": "Paris", "degrees": 18}
    said = {"tool": made, "native": made, "asked": ["Paris"], "told": "It is mild."}
    got = await report("pydantic_ai", "requirements-agents")
    assert got == {"chat": said, "responses": said}
