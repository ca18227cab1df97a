"""Each client that users bring, unchanged and in a process of its own, against the running server."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import HERE, MODELS, cases, node_folder, python_with
from tests.conftest import Endpoint

# Installing the clients for the first time takes minutes.
pytestmark = pytest.mark.timeout(600)

SETTINGS = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false"}
"""LiteLLM would fetch its list of prices."""
ERRORS: dict[str, tuple[int | None, str]] = {
    "unknown": (404, "no model 'nobody' here; there are mix, quick"),
    "broken": (502, "the script says that this call fails"),
    "key": (401, "this API key is not known here"),
    "overflow": (400, "This model's maximum context length is 4096 tokens."),
    "parameter": (400, "'n' is not supported here; leave it out or send 1"),
    "tools": (400, "'tool_choice' "),
    "form": (400, '\' is not supported here; leave it out or send {"type": "text"}'),
}
"""The status and the words that every client shows of an error, by the name of the case."""
NO_CALL = (
    "'tool_choice' is not supported here",
    "'tool_choice' asks for a call, and there are no tools",
)
"""What is said of a demanded call: to an engine that cannot call tools, and without any tools."""
REFUSED = (429, "key 'alone': 1 requests are in work and concurrency is 1 here; try again in 1 s")


def told(
    command: Sequence[str | Path], url: str, *, silent: bool = False, **more: str
) -> dict[str, Any]:
    """What a user's program reports of its talk with the API at `url`."""
    asked = json.dumps(cases(f"{url}/v1", silent=silent) | more)
    settings = os.environ | SETTINGS | {"CASES": asked}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def check(report: dict[str, Any]) -> None:
    """The same answer whole and in pieces, as many tokens in both, and whole talks understood."""
    assert len(report["whole"].split()) == 20
    assert report["finish"] == "stop"
    assert len([piece for piece in report["pieces"] if piece]) > 10
    assert len("".join(report["pieces"]).split()) == 20
    whole, streamed = report["tokens"]
    assert whole == streamed > 20
    for talk in {"talk", "again"} & report.keys():
        assert len(report[talk].split()) == 20
        assert report[talk] != report["whole"]


def check_errors(report: dict[str, Any]) -> dict[str, str]:
    """Every client shows the status and our words. Returns the client's own name of each error."""
    shown = report["errors"]
    for name in ERRORS.keys() & shown.keys():
        status, words = ERRORS[name]
        assert (shown[name][1], words in _plain(shown[name][-1])) == (status, True), shown[name]
    if "tools" in shown:
        assert any(words in _plain(shown["tools"][-1]) for words in NO_CALL), shown["tools"]
    # An error that ends a stream has no status. A stream may begin before its conversation is counted.
    assert ERRORS["overflow"][1] in _plain(shown.get("streamed overflow", shown["overflow"])[-1])
    if shown.get("stream"):
        assert "model 'silent' wrote nothing in time" in shown["stream"][-1]
    busy = report["busy"]
    assert (busy["refused"][1], REFUSED[1] in _plain(busy["refused"][-1])) == (REFUSED[0], True)
    # Refused at first, let in by a client that tries again: so the answer that it left had ended.
    assert busy["read"] >= 3
    assert len(busy["again"].split()) == 20
    return {name: error[0] for name, error in shown.items() if error}


def _plain(text: str) -> str:
    """Words that a client shows as Python's or JSON's source."""
    return text.replace("\\'", "'").replace('\\"', '"')


def test_openais_python_client(endpoint: Endpoint) -> None:
    report = told([sys.executable, HERE / "openai_client.py"], endpoint.base_url)
    check_openais(report)
    check_shown(report)


def test_openais_javascript_client(endpoint: Endpoint) -> None:
    folder = node_folder("package")
    shutil.copy(HERE / "openai_client.mjs", folder)
    report = told(["node", folder / "openai_client.mjs"], endpoint.base_url)
    check_openais(report)
    check_shown(report)


def check_openais(report: dict[str, Any]) -> None:
    """What OpenAI's clients show, which have the same classes in every language."""
    check(report)
    assert "".join(report["pieces"]) == report["whole"]
    assert report["models"] == ["mix", *MODELS]
    responses = report["responses"]
    assert [len(text.split()) for text in responses["texts"]] == [20, 20]
    assert len(responses["talk"].split()) == 20
    assert len(responses["reasoning"]) == 3
    assert all(text.startswith("**Proposal of ") for text in responses["reasoning"])
    assert responses["refused"][1:4] == [400, "context_length_exceeded", "input"]
    assert responses["kept"][1:4] == [400, "invalid_request", "previous_response_id"]
    assert report["degraded"] == [True, "slimmoa-degraded", [True], "slimmoa-degraded"]
    names = check_errors(report)
    assert names["unknown"] == "NotFoundError"
    assert names["broken"] == "InternalServerError"
    assert names["key"] == "AuthenticationError"
    assert names["overflow"] == names["parameter"] == "BadRequestError"
    assert report["busy"]["refused"][0] == "RateLimitError"
    codes = {name: error[2] for name, error in report["errors"].items() if error}
    assert codes["unknown"] == "model_not_found"
    assert codes["broken"] == "engine_error"
    assert codes["overflow"] == codes["streamed overflow"] == "context_length_exceeded"


def check_shown(report: dict[str, Any]) -> None:
    """The mixture's own fields: proposals whole, and events of a stream."""
    assert len(report["proposals"]) == 3
    assert report["responses"]["texts"] == [report["whole"]] * 2
    kinds = set(report["events"])
    assert kinds == {"stage.started", "proposal.delta", "proposal.done", "stage.done", "summary"}


def test_langchain(endpoint: Endpoint) -> None:
    python = python_with("requirements")
    report = told([python, HERE / "langchain_client.py"], endpoint.base_url)
    check(report)
    assert report["chain"] == report["whole"]
    assert report["shows moa"] is False
    assert report["degraded"] == ["slimmoa-degraded"] * 2
    responses = report["responses"]
    assert [responses[n] for n in ("words", "streamed words", "talk words")] == [20, 20, 20]
    assert len(responses["reasoning"]) == 3
    names = check_errors(report)
    # By its own class of this error LangChain knows when to shorten a conversation.
    assert names["overflow"] == "OpenAIContextOverflowError"
    assert names["streamed overflow"] in ("OpenAIContextOverflowError", "OpenAIAPIContextOverflowError")
    assert names["unknown"] == "OpenAIModelNotFoundError"
    assert names["key"] == "OpenAIAuthenticationError"


def test_litellm(endpoint: Endpoint) -> None:
    python = python_with("requirements")
    report = told([python, HERE / "litellm_client.py"], endpoint.base_url)
    check(report)
    assert report["shows moa"] == [True, True]
    assert report["degraded"] == ["slimmoa-degraded"] * 2
    assert report["responses"]["words"] == 20
    assert len(report["responses"]["reasoning"]) == 3
    assert report["responses"]["last event"].endswith("RESPONSE_COMPLETED")
    assert report["busy"]["left"] == []
    names = check_errors(report)
    assert names["overflow"] == "ContextWindowExceededError"
    assert names["unknown"] == "NotFoundError"
    assert names["broken"] == "BadGatewayError"
    assert report["busy"]["refused"][0] == "RateLimitError"
