"""More clients that users bring. CI's time has no room for them: `make test-clients` runs them, and
installs them once into the user's cache (3 GB)."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients.conftest import HERE, KEY, MODELS, node_folder, python_with
from tests.clients.test_clients import ERRORS, SETTINGS, check, check_errors, told
from tests.conftest import Endpoint, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MASTER_KEY = "sk-a-long-key-for-the-proxy-of-these-tests"


def ai(endpoint: Endpoint, kind: str) -> dict[str, Any]:
    folder = node_folder("ai")
    shutil.copy(HERE / "ai_client.mjs", folder)
    report = told(["node", folder / "ai_client.mjs", kind], endpoint.base_url, silent=True)
    check(report)
    assert report["degraded"] == [True, "slimmoa-degraded"]
    assert report["tools"] == []  # tools that a model may call are left out
    names = check_errors(report)
    for name in {*ERRORS} & names.keys():
        assert names[name] == "AI_APICallError"
    return report


def test_vercels_ai_with_chat_completions(endpoint: Endpoint) -> None:
    report = ai(endpoint, "compatible")
    assert set(report["events"]) == {
        "stage.started",
        "proposal.delta",
        "proposal.done",
        "stage.done",
        "summary",
    }
    assert report["reasoning"] is None
    assert report["second"] == []


def test_vercels_ai_with_the_responses_api(endpoint: Endpoint) -> None:
    report = ai(endpoint, "openai")
    for shown in (report["reasoning"], report["streamed_reasoning"]):
        assert shown.count("**Proposal of ") == 3
        assert shown.count("\n\n**Proposal of ") == 2  # one below the other
    # By default it sends references to answers that a server has kept, and this one keeps none.
    assert report["second"][1:3] == [400, "invalid_request"]
    assert "once you set `store` to false" in report["second"][3]


def test_llm(endpoint: Endpoint) -> None:
    report = told(
        [python_with("requirements-agents"), HERE / "llm_client.py"], endpoint.base_url, silent=True
    )
    assert report["models"] == ["mix", *MODELS]
    for name in ("whole", "stream", "again", "endpoint", "responses", "responses again", "degraded"):
        status, printed, _ = report[name]
        assert (status, len(printed.split())) == (0, 20)
    read, refused, let_in = report["busy"]
    assert read == 10
    assert (refused[0], "Error code: 429 - key 'alone': 1 requests are in work" in refused[2][0]) == (
        1,
        True,
    )
    assert let_in[0] == 0
    assert report["errors"].pop("tools")[0] == 0  # left out
    assert "model 'silent' wrote nothing in time" in report["errors"].pop("stream")[2][0]
    for name, (status, printed, words) in report["errors"].items():
        assert (status, printed) == (1, "")
        assert ERRORS[name][1] in words[0]


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_pydantic_ai(pydantic_ai: dict[str, Any], api: str) -> None:
    report = pydantic_ai[api]
    check(report)
    assert len(report["thinking"]) == (3 if api == "responses" else 0)
    assert report["degraded"][0] is False  # it keeps no field by which one could know
    names = check_errors(report)
    assert names["unknown"] == "ModelNotFoundError"
    assert names["broken"] == "ModelServerError"
    assert names["key"] == "ModelAuthenticationError"
    assert names["overflow"] == "ModelContextWindowExceededError"
    assert names["tools"] == "ModelRequestRejectedError"  # its way to ask for an object
    assert names["stream"] == "ModelAPIError"


@pytest.fixture(scope="module")
def pydantic_ai(endpoint: Endpoint) -> dict[str, Any]:
    python = python_with("requirements-agents")
    return told([python, HERE / "pydantic_ai_client.py"], endpoint.base_url, silent=True)


def test_instructor(endpoint: Endpoint) -> None:
    report = told(
        [python_with("requirements-instructor"), HERE / "instructor_client.py"], endpoint.base_url
    )
    modes = report["modes"]
    assert {mode[0] for mode in modes.values()} == {"InstructorRetryException"}
    assert "tool_choice" in modes["TOOLS"][1]
    assert "response_format" in modes["JSON"][1]
    assert "response_format" in modes["JSON_SCHEMA"][1]
    assert "Invalid JSON" in modes["MD_JSON"][1]  # asked in words only: the scripted engine has no JSON
    assert ERRORS["unknown"][1] in report["unknown"][1]


def test_promptfoo(endpoint: Endpoint) -> None:
    command = node_folder("promptfoo") / "node_modules" / ".bin" / "promptfoo"
    python = python_with("requirements-instructor")
    report = told([python, HERE / "promptfoo_client.py", command], endpoint.base_url)
    answers = report["answers"]
    for name in ("chat", "answer alone"):
        passed, output, tokens, *_ = answers[name]
        assert (passed, len(output.split()), tokens) == (True, 20, 22)
    assert (answers["chat"][3], answers["degraded"][3]) == ("false", "true")
    assert answers["responses"][1].count("Reasoning: **Proposal of ") == 3
    for name, (passed, _, _, _, error) in report["errors"].items():
        status, words = ERRORS[name]
        assert (passed, f"{status} " in error, words in error.replace('\\"', '"')) == (
            False,
            True,
            True,
        )


@pytest.fixture(scope="module")
def proxy(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """LiteLLM's proxy in front of the endpoint, which it asks for every model."""
    folder, port = tmp_path_factory.mktemp("proxy"), free_port()
    python = python_with("requirements-proxy")
    config = folder / "config.yaml"
    access = f"model: openai/*, api_base: {endpoint.base_url}/v1, api_key: {KEY}"
    config.write_text(f'model_list:\n- {{model_name: "*", litellm_params: {{{access}}}}}\n')
    command: list[str | Path] = [
        Path(python).parent / "litellm",
        "--config",
        config,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    settings = os.environ | SETTINGS | {"LITELLM_MASTER_KEY": MASTER_KEY}
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(command, env=settings, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            _await(f"{url}/health/liveliness", running, folder / "log")
            yield url
        finally:
            running.terminate()
            running.wait(30)


def _await(url: str, running: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(600):
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.HTTPError:
            assert running.poll() is None, log.read_text()
            time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_openais_client_behind_litellms_proxy(proxy: str) -> None:
    python = python_with("requirements")
    report = told([python, HERE / "openai_client.py"], proxy, silent=True, key=MASTER_KEY, alone="")
    check(report)
    assert len(report["proposals"]) == 3
    assert report["events"] == ["summary"]  # the proxy passes no chunks without choices
    assert report["degraded"] == [True, "slimmoa-degraded", [True], "slimmoa-degraded"]
    assert [len(text.split()) for text in report["responses"]["texts"]] == [20, 20]
    assert len(report["responses"]["reasoning"]) == 3
    # The proxy has keys of its own, and drops a `tool_choice` without tools.
    for name in ERRORS.keys() - {"key", "tools"}:
        status, words = ERRORS[name]
        shown = report["errors"][name]
        assert (shown[1], words in shown[-1].replace('\\"', '"')) == (status, True), shown
    assert "ContextWindowExceededError" in report["errors"]["overflow"][-1]
    assert "model 'silent' wrote nothing in time" in report["errors"]["stream"][-1]
