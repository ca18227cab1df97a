"""`serve run`, as Ray's users type it, with the builder and with a file of `slimmoa export`."""

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import HOST, free_port, user_environment

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("form", ["builder", "exported"])
def test_serve_run_serves_the_builder_and_the_exported_file(form: str, tmp_path: Path) -> None:
    port = 8000 if form == "builder" else free_port()  # the builder takes Serve's own default
    if form == "builder":
        target = ["serve_app.app:build", "config=configs/scripted.yaml"]
    else:
        file = tmp_path / "serve.yaml"
        export = [str(BIN / "slimmoa"), "export", "scripted", "-o", str(file), "--port", str(port)]
        subprocess.run(export, check=True, timeout=120, cwd=ROOT, env=user_environment())
        target = [str(file)]
    log = tmp_path / "log"
    environment = user_environment(RAY_USAGE_STATS_ENABLED="0")
    with (
        log.open("w") as out,
        subprocess.Popen(
            [str(BIN / "serve"), "run", *target],
            stdout=out,
            stderr=out,
            cwd=ROOT,
            env=environment,
            # A shell starts what it puts into the background deaf to Ctrl-C, and so would this be.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process,
    ):
        try:
            answer = _when_up(f"http://{HOST}:{port}", process)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=60)
            finally:
                process.kill()
    assert answer["choices"][0]["message"]["content"], log.read_text()


def _when_up(
    base_url: str, process: subprocess.Popen[bytes]
) -> dict[str, list[dict[str, dict[str, str]]]]:
    """Ask as soon as the endpoint is ready; the test's timeout bounds the wait. While another Ray
    starts beside this one, an answer may miss the recipe's deadlines (3 and 5 s). Then ask again."""
    body = {"model": "slimmoa-scripted", "messages": [{"role": "user", "content": "hello"}]}
    transport = httpx.HTTPTransport(retries=3)
    with httpx.Client(base_url=base_url, transport=transport, timeout=10) as client:
        while process.poll() is None:
            try:
                if client.get("/readyz").status_code == 200:
                    answer = client.post("/v1/chat/completions", json=body)
                    if answer.status_code in (503, 504):
                        continue
                    found: dict[str, list[dict[str, dict[str, str]]]] = answer.json()
                    assert answer.status_code == 200, found
                    return found
            except httpx.TransportError:
                continue
    raise AssertionError("serve run ended")
