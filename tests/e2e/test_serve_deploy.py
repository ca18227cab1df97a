"""`serve deploy` of the file for a machine without a card, onto a cluster of `ray start`, as operators
do it: real processes, the real dashboard, real weights."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
import yaml
from openai import OpenAI

from tests.conftest import HOST, free_port
from tests.e2e.processes import below, until

pytestmark = [pytest.mark.weights, pytest.mark.timeout(420)]
BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
FILE = ROOT / "configs" / "serve" / "cpu.yaml"
START_S = 60.0
DEPLOY_S = 240.0


def ray_env() -> dict[str, str]:
    lines = (ROOT / "configs" / "clusters" / "ray.env").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


@contextmanager
def cluster(environment: dict[str, str]) -> Iterator[str]:
    """A cluster of one node with its dashboard, of which it gives the address; ended by itself, for
    `ray stop` would end everybody's."""
    dashboard, ports = free_port(), [free_port() for _ in range(3)]
    # A path of pytest's own would be too long for the sockets in it.
    with TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=2"]
        command += [
            f"--temp-dir={folder}",
            f"--port={ports[0]}",
            f"--ray-client-server-port={ports[1]}",
        ]
        command += [f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={ports[2]}"]
        with subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                address = f"http://{HOST}:{dashboard}"
                until(lambda: answers(f"{address}/api/version", environment), START_S)
                yield address
            finally:
                family = [process.pid, *below(process.pid)]
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(timeout=30)
                finally:
                    for pid in set(family) & set(below(os.getpid())):
                        os.kill(pid, signal.SIGKILL)


def asked(url: str, environment: dict[str, str]) -> httpx.Response:
    token = {"Authorization": f"Bearer {environment['RAY_AUTH_TOKEN']}"}
    return httpx.get(url, headers=token, timeout=10)


def answers(url: str, environment: dict[str, str]) -> bool:
    try:
        return asked(url, environment).status_code == 200
    except httpx.TransportError:
        return False


def serve(
    environment: dict[str, str], *arguments: str, timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "serve"), *arguments]
    return subprocess.run(
        command,
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def test_a_deployed_file_answers_the_openai_client() -> None:
    (application,) = yaml.safe_load(FILE.read_text("utf-8"))["applications"]
    url = f"http://{application['args']['host']}:{application['args']['port']}"
    environment = os.environ | ray_env() | {"RAY_AUTH_TOKEN": secrets.token_hex(16)}
    environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = "0"  # nobody asks any more when it ends
    environment.pop("RAY_ADDRESS", None)
    with cluster(environment) as address:
        deployed = serve(environment, "deploy", str(FILE), "--address", address)
        assert deployed.returncode == 0, deployed.stderr

        def is_up() -> bool:
            # Over HTTP, for each `serve status` would take seconds of a core from the deployment.
            state = asked(f"{address}/api/serve/applications/", environment).json()
            status = state["applications"].get("slimmoa", {}).get("status", "NOT_STARTED")
            assert status in ("DEPLOYING", "NOT_STARTED", "RUNNING"), state
            return bool(status == "RUNNING")

        until(is_up, DEPLOY_S)
        told = yaml.safe_load(serve(environment, "status", "--address", address).stdout)
        assert told["applications"]["slimmoa"]["status"] == "RUNNING"
        assert httpx.get(f"{url}/readyz").json()["ready"] is True
        assert httpx.get(f"{url}/healthz").status_code == 200
        client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        answer = client.chat.completions.create(
            model="slimmoa-tiny",
            messages=[{"role": "user", "content": "Name a colour."}],
            seed=1,
            max_tokens=24,
            extra_body={"moa": {"events": True}},
        )
        assert answer.choices[0].message.content
        moa = (answer.model_extra or {})["moa"]
        assert (moa["degraded"], len(moa["proposals"])) == (False, 2)
        refused = serve(environment | {"RAY_AUTH_TOKEN": "no"}, "status", "--address", address)
        assert refused.returncode != 0
        assert "RUNNING" not in refused.stdout
