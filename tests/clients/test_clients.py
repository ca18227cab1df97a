"""Each client that users bring, unchanged and in a process of its own, against the running server."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import HERE, MODELS
from tests.conftest import Endpoint

# Installing the clients for the first time takes minutes.
pytestmark = pytest.mark.timeout(600)


def told(command: Sequence[str | Path], endpoint: Endpoint) -> dict[str, Any]:
    """What a user's program reports of its talk with the endpoint."""
    # LiteLLM would fetch its list of prices.
    settings = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false"}
    arguments = [*command, f"{endpoint.base_url}/v1", "mix"]
    done = subprocess.run(arguments, env=settings, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def check(report: dict[str, Any]) -> None:
    """The same answer whole and in pieces, as many tokens in both, and a whole talk understood."""
    assert len(report["whole"].split()) == 20
    assert report["finish"] == "stop"
    assert len(report["pieces"]) > 1
    assert "".join(report["pieces"]) == report["whole"]
    whole, streamed = report["tokens"]
    assert whole == streamed > 20
    assert len(report["talk"].split()) == 20
    assert report["talk"] != report["whole"]


def test_openais_python_client(endpoint: Endpoint) -> None:
    report = told([sys.executable, HERE / "openai_client.py"], endpoint)
    check(report)
    assert report["responses"] == [report["whole"]] * 2
    assert report["models"] == ["mix", *MODELS]
    assert report["unknown"] == ["NotFoundError", 404, "model_not_found"]
    assert report["broken"] == ["InternalServerError", 502, "engine_error"]


def test_openais_javascript_client(endpoint: Endpoint, node_modules: Path) -> None:
    report = told(["node", node_modules / "openai_client.mjs"], endpoint)
    check(report)
    assert report["responses"] == [report["whole"]] * 2
    assert report["models"] == ["mix", *MODELS]
    assert report["unknown"] == ["NotFoundError", 404, "model_not_found"]
    assert report["broken"] == ["InternalServerError", 502, "engine_error"]


def test_langchain(endpoint: Endpoint, python: str) -> None:
    report = told([python, HERE / "langchain_client.py"], endpoint)
    check(report)
    assert report["chain"] == report["whole"]
    assert report["unknown"][1:] == [404, "model_not_found"]
    assert report["broken"][1:] == [502, "engine_error"]


def test_litellm(endpoint: Endpoint, python: str) -> None:
    report = told([python, HERE / "litellm_client.py"], endpoint)
    check(report)
    assert report["unknown"] == ["NotFoundError", 404]
    assert report["broken"] == ["BadGatewayError", 502]
    assert report["overflow"] == ["ContextWindowExceededError", 400]
    assert report["fingerprint"] == "slimmoa"
