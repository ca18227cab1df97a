"""Objects and tools from real models, by the clients that people ask for them with.

`tiny_cpu` answers, with short proposals. Its 0.5B decides badly whether to call a tool, so nothing is
asserted of that. But what it has to call, and every object, is always valid.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from configs.load import load
from configs.schema import Recipe
from tests.clients.conftest import HERE, python_with
from tests.conftest import Endpoint, Serving

pytestmark = [pytest.mark.weights, pytest.mark.slow, pytest.mark.timeout(900)]

SETTINGS = {"LANGSMITH_TRACING": "false"}


@pytest.fixture(scope="module")
def tiny(serving: Serving) -> Iterator[Endpoint]:
    name = os.environ.get("SLIMMOA_TOOLS_RECIPE", "tiny_cpu")
    plain = load(name).model_dump(mode="json", exclude_unset=True)
    for layer in plain["layers"]:
        for proposer in layer["proposers"]:
            proposer["sampling"] = {"temperature": 0, "max_tokens": 24}
    with serving(Recipe.model_validate(plain)) as served:
        yield served


def report(program: str, requirements: str, served: Endpoint) -> Any:
    cases = json.dumps({"url": f"{served.base_url}/v1", "name": served.recipe.name})
    done = subprocess.run(
        [python_with(requirements), HERE / f"tools_{program}.py"],
        env=os.environ | SETTINGS | {"CASES": cases},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    print(program, done.stdout)
    return json.loads(done.stdout.splitlines()[-1])


def test_openai(tiny: Endpoint) -> None:
    got = report("openai", "requirements", tiny)
    assert got["form"] == 20
    assert got["forced"]
    assert got["forced finish"] == "tool_calls"
    assert got["streamed"]
    assert got["pieces"] > 1
    assert got["item"][:2] == ["function_call", "Weather"]
    assert list(got["item"][2]) == ["town"]
    assert got["parsed"]


def test_langchain(tiny: Endpoint) -> None:
    got = report("langchain", "requirements", tiny)
    assert set(got["shapes"].values()) == {"Weather"}
    assert {name for name, _ in got["called"] + got["streamed"]} == {"weather"}


def test_instructor(tiny: Endpoint) -> None:
    got = report("instructor", "requirements-instructor", tiny)
    assert sorted(got) == ["JSON_SCHEMA", "TOOLS"]
    assert all(sorted(made) == ["degrees", "town"] for made in got.values())


def test_pydantic_ai(tiny: Endpoint) -> None:
    got = report("pydantic_ai", "requirements-agents", tiny)
    for api in ("chat", "responses"):
        assert sorted(got[api]["tool"]) == sorted(got[api]["native"]) == ["degrees", "town"]
        assert got[api]["told"] or got[api]["asked"]
