"""Debian's Prometheus and promtool, from the machine or from Debian's package."""

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from platformdirs import user_cache_path

from tests.conftest import HOST, free_port

READY_S = 20
SCRAPE = "1s"


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`. If the machine has none, Debian's package is unpacked
    into the user's cache; nothing is installed."""
    if found := shutil.which(name):
        return found
    folder = user_cache_path("slimmoa") / "debian-prometheus"
    path = folder / "usr" / "bin" / name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "prometheus"], cwd=folder, check=True)
        for package in folder.glob("prometheus_*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
            package.unlink()
    return str(path)


def promtool(*arguments: str, cwd: Path | None = None, text: str | None = None) -> tuple[int, str]:
    """The exit code of promtool, and what it prints."""
    done = subprocess.run(
        [program("promtool"), *arguments],
        cwd=cwd,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus, asked over its HTTP API."""

    url: str

    def get(self, path: str, **query: str) -> Any:
        """The data of an answer of the API.

        Raises:
            AssertionError: Prometheus refuses the question; the message has its reason.
        """
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            raise AssertionError(f"{query}: {refused.read().decode()}") from None

    def series(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression gives now."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found


@contextmanager
def prometheus(folder: Path, target: str, key: str, rules: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes an endpoint with a key, as docs/metrics.md says.

    Args:
        folder: for its configuration and its data.
        target: host and port of the endpoint.
        key: the API key.
        rules: the file of alert rules.
    """
    (folder / "key").write_text(key)
    scrape = {
        "job_name": "slimmoa",
        "scrape_interval": SCRAPE,
        "authorization": {"credentials_file": str(folder / "key")},
        "static_configs": [{"targets": [target]}],
    }
    config = {
        "global": {"evaluation_interval": SCRAPE},
        "rule_files": [str(rules)],
        "scrape_configs": [scrape],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    arguments = [
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={HOST}:{port}",
    ]
    with (folder / "log").open("w") as log:
        running = subprocess.Popen([program("prometheus"), *arguments], stdout=log, stderr=log)
        try:
            served = Prometheus(f"http://{HOST}:{port}")
            _await_ready(served, folder / "log")
            yield served
        finally:
            running.terminate()
            running.wait(10)


def _await_ready(served: Prometheus, log: Path) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(f"{served.url}/-/ready", timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(log.read_text()[-2000:])
