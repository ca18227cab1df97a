"""The commands as a user types them, against endpoints that they started."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import httpx
import pytest

from tests.conftest import HOST, free_port, user_environment

pytestmark = pytest.mark.weights
BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]


def slimmoa(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "slimmoa"), *arguments]
    return subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        check=False,
        env=user_environment(),
    )


LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z (INFO|WARNING) [a-z]+ process=[\w:/.-]+ ")


@contextmanager
def started(
    command: list[str], port: int, stdout: int | IO[str] = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[str]]:
    """A server process of its own session, from readiness to SIGTERM; it has to end cleanly."""
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=stdout, text=True, cwd=ROOT, env=user_environment()
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if "ready" in line:
                    break
            assert httpx.get(f"http://{HOST}:{port}/readyz", timeout=10).json()["ready"] is True
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    port = free_port()
    command = [str(BIN / "slimmoa"), "serve", "tiny_cpu", "--port", str(port)]
    with TemporaryFile("w+") as printed:
        with started(command, port, printed) as process:
            yield f"http://{HOST}:{port}/v1"
        assert process.returncode == 128 + signal.SIGTERM
        printed.seek(0)
        lines = printed.read().splitlines()  # what it says of itself goes to stderr, and Ray is quiet
        assert [line for line in lines if not LOG_LINE.match(line)] == []
        assert sum(" INFO answer process=ingress " in line for line in lines) >= 4
        assert sum(" INFO refused " in line and "code=model_not_found" in line for line in lines) == 1
        assert not any("hello" in line for line in lines)


def test_ask_prints_only_the_answer_where_the_output_is_no_terminal(url: str) -> None:
    asked = slimmoa("ask", "Say hello.", "--url", url, "--seed", "1", "--max-tokens", "12")
    waits = [line for line in asked.stderr.splitlines() if not line.startswith("waiting for")]
    assert (asked.returncode, waits) == (0, [])
    assert asked.stdout.strip()


def test_ask_reads_standard_input_and_gives_json(url: str) -> None:
    asked = slimmoa("ask", "-", "--url", url, "--json", "--max-tokens", "8", stdin="Say hello.")
    answer = json.loads(asked.stdout)
    assert answer["model"] == "slimmoa-tiny"
    assert len(answer["moa"]["proposals"]) == 2


def test_chat_answers_each_turn_until_exit(url: str) -> None:
    turns = "Say one word.\n/reset\nSay another word.\n/exit\n"
    said = slimmoa("chat", "--url", url, "-m", "smollm2-135m", stdin=turns)
    assert said.returncode == 0
    assert all(said.stdout.split("> ")[n].strip() for n in (1, 3))  # /reset answers nothing


def test_status_names_the_answers_of_the_server(url: str) -> None:
    shown = slimmoa("status", "--url", url)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith(f"slimmoa-tiny at {url}: 0 in work")
    assert "look at this" not in shown.stdout
    state = json.loads(slimmoa("status", "--url", url, "--json").stdout)
    assert {answer["outcome"] for answer in state["answers"]} == {"ok"}
    assert {member["state"] for card in state["cards"] for member in card["members"]} == {"resident"}


def test_errors_of_the_endpoint_are_one_plain_line(url: str) -> None:
    asked = slimmoa("ask", "Hello", "--url", url, "--model", "nobody")
    assert asked.returncode == 1
    assert asked.stderr.startswith("error: ")
    assert "no model 'nobody' here; there are slimmoa-tiny, " in asked.stderr
    assert "Traceback" not in asked.stderr


def test_a_taken_port_is_said_before_anything_is_started() -> None:
    with closing(socket.socket()) as taken:
        taken.bind((HOST, 0))
        taken.listen()
        served = slimmoa("serve", "scripted", "--port", str(taken.getsockname()[1]))
    assert served.returncode == 1
    assert "cannot listen on 127.0.0.1" in served.stderr


def test_without_an_endpoint_the_error_says_how_to_start_one() -> None:
    asked = slimmoa("ask", "Hello", "--url", f"http://{HOST}:{free_port()}/v1")
    assert asked.returncode == 1
    assert "start a server with `slimmoa serve`" in asked.stderr


def test_weights_that_no_engine_can_load_end_the_start_with_the_cause(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but not really")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: mix\n"
        "models: {one: {engine: llamacpp, weights: [{path: broken.gguf}]}}\n"
        "layers: [{proposers: [{model: one}]}]\n"
        "aggregator: {model: one}\n"
    )
    served = slimmoa("serve", str(recipe), "--port", str(free_port()))
    assert served.returncode == 1
    lines = [line for line in served.stderr.splitlines() if not line.startswith("waiting for")]
    assert len(lines) == 1, served.stderr
    assert lines[0].startswith("error: cannot understand 'broken.gguf': it is GGUF of version")


def test_check_prints_every_error_with_its_line(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: mix\n"
        "models: {one: {engine: scripted, tokns: 3}}\n"
        "layers: [{proposers: [{model: two}]}]\n"
        "aggregator:\n"
        "  model: one\n"
        "  sampling: {temperature: 3}\n"
    )
    checked = slimmoa("check", str(recipe), "tiny_cpu")
    assert checked.returncode == 1
    lines = [line.removeprefix(f"{recipe}:") for line in checked.stderr.splitlines()]
    assert [line.split(":")[0] for line in lines] == ["2", "3", "6"]
    assert "tiny_cpu: slimmoa-tiny" in checked.stdout
