"""A real Prometheus scrapes a real server under load: `make test-metrics`.

The server has two ingresses, engines that take turns on a card, a proposer that fails, one that is
late, one whose server is dead, and keys with limits. So every metric has something to say.
"""

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import psutil
import pytest
import yaml

from cluster import ray_runtime
from configs.schema import Recipe
from serve_app.access.api_keys import generate_key, key_line
from tests.conftest import HOST, free_port
from tests.tools.prometheus import Prometheus, prometheus, promtool

GRAFANA = Path(__file__).parents[2] / "docs" / "grafana"
LOAD_S = 25
VARIABLES = {"$__rate_interval": "15s", "$mixture": "mix", "$model": ".*"}
WITH_COLON = re.compile(r"^vllm:\S+ metric names should not contain ':'$")
"""What promtool says of vLLM's names, which are what they are."""


@dataclass(frozen=True)
class Server:
    """A served recipe and its keys."""

    address: str
    keys: dict[str, str]

    def scrape(self, key: str = "prometheus") -> httpx.Response:
        headers = {"authorization": f"Bearer {self.keys[key]}"}
        return httpx.get(f"http://{self.address}/metrics", headers=headers, timeout=20)


def recipe(keys_file: Path) -> Recipe:
    on_card = {"engine": "scripted", "weight_bytes": 2_000_000, "residency": "turns", "tokens": 12}
    on_card |= {"token_s": 0.005, "concurrency": 4}
    remote = {"engine": "openai_http", "base_url": f"http://{HOST}:{free_port()}/v1", "model": "gone"}
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": {
                "quick": on_card,
                "shaky": on_card | {"fail_share": 0.3},
                "slow": {"engine": "scripted", "tokens": 12, "token_s": 0.5, "concurrency": 8},
                "far": remote | {"retries": 0},
                "writer": on_card | {"tokens": 40},
            },
            "layers": [{"proposers": [{"model": m} for m in ("quick", "shaky", "slow", "far")]}],
            "aggregator": {"model": "writer", "sampling": {"max_tokens": 64}},
            "cards": {"memory_bytes": 5_000_000, "patience_s": 0.5},
            "limits": {"layer_deadline_s": 3, "grace_s": 0.5, "quorum": 1},
            "access": {"keys_file": str(keys_file), "metrics_keys": ["prometheus"]},
        }
    )


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    from serve_app.app import BuildArgs, build

    keys = {name: generate_key() for name in ("prometheus", "free", "tight")}
    hashes = [line.partition(": ")[2] for line in (key_line(n, k) for n, k in keys.items())]
    entries: dict[str, Any] = dict(zip(keys, hashes, strict=True))
    entries["tight"] = {"key": entries["tight"], "requests_per_minute": 2}
    (folder / "keys.yaml").write_text(yaml.safe_dump(entries))
    ray_runtime.connect(None, verbose=False)
    port = free_port()  # not before: Ray's processes take free ports too
    try:
        arguments = BuildArgs(
            recipe=recipe(folder / "keys.yaml"),
            follow_nodes=False,
            host=HOST,
            port=port,
            ingresses=2,
        )
        ray_runtime.deploy(build(arguments), ray_runtime.APP_NAME)
        yield Server(f"{HOST}:{port}", keys)
    finally:
        ray_runtime.disconnect(ray_runtime.APP_NAME, local=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def scraper(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped the server while it was under load."""
    folder = tmp_path_factory.mktemp("prometheus")
    key = server.keys["prometheus"]
    with prometheus(folder, server.address, key, GRAFANA / "alerts.yaml") as running:
        asyncio.run(load(server))
        yield running


async def load(server: Server) -> None:
    """Ask as many clients would, for LOAD_S: with both keys, a wrong one, and questions gone wrong."""
    until = time.monotonic() + LOAD_S
    url = f"http://{server.address}/v1/chat/completions"

    async def ask(key: str, pause_s: float, **fields: Any) -> None:
        body = {"model": "mix", "messages": [{"role": "user", "content": "hello"}], **fields}
        headers = {"authorization": f"Bearer {server.keys.get(key, key)}"}
        # Each request has a connection of its own, so that both ingresses get some.
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            while time.monotonic() < until:
                async with session.post(url, json=body) as answer:
                    await answer.read()
                await asyncio.sleep(pause_s)

    await asyncio.gather(
        *(ask("free", 0, stream=n % 2 == 0) for n in range(4)),
        ask("tight", 0.2, model="quick"),
        ask("free", 1, model="far"),
        ask("free", 1, model="nobody"),
        ask("wrong", 1),
    )


def expressions(value: Any) -> Iterator[str]:
    """All expressions of the board, with the variables of Grafana filled in."""
    if isinstance(value, dict):
        if isinstance(text := value.get("expr"), str):
            for name, filled in VARIABLES.items():
                text = text.replace(name, filled)
            yield text
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from expressions(inner)


BOARD = list(expressions(json.loads((GRAFANA / "slimmoa.json").read_text("utf-8"))))
ALERTS = [
    (rule["alert"], rule["expr"])
    for group in yaml.safe_load((GRAFANA / "alerts.yaml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]


def test_prometheus_takes_every_scrape(scraper: Prometheus) -> None:
    (target,) = scraper.get("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    (up,) = scraper.series("min_over_time(up[20s])")
    assert up["value"][1] == "1"


@pytest.mark.parametrize("number", range(len(BOARD)))
def test_every_expression_of_the_board_gives_a_series(scraper: Prometheus, number: int) -> None:
    assert scraper.series(BOARD[number]), BOARD[number]


@pytest.mark.parametrize(("alert", "expression"), ALERTS, ids=[name for name, _ in ALERTS])
def test_prometheus_takes_every_alert(scraper: Prometheus, alert: str, expression: str) -> None:
    scraper.series(expression)
    rules = [rule for group in scraper.get("rules")["groups"] for rule in group["rules"]]
    (rule,) = [rule for rule in rules if rule["name"] == alert]
    assert rule["health"] == "ok"


def test_what_is_wrong_with_the_server_is_alerted(scraper: Prometheus) -> None:
    """The rules that wait for minutes are pending by now."""
    raised = {alert["labels"]["alertname"] for alert in scraper.get("alerts")["alerts"]}
    assert {"SlimMoADegraded", "SlimMoAUpstreamDead", "SlimMoAKeyOverLimit"} <= raised
    assert "SlimMoADown" not in raised


def test_both_ingresses_count_and_each_has_its_own_series(scraper: Prometheus) -> None:
    found = scraper.series("sum by (ingress) (slimmoa_answers_total)")
    counts = {series["metric"]["ingress"]: float(series["value"][1]) for series in found}
    assert set(counts) == {"0", "1"}
    assert all(counts.values())


def test_promtool_takes_the_numbers(server: Server, scraper: Prometheus) -> None:
    assert scraper.url
    code, said = promtool("check", "metrics", text=server.scrape().text)
    assert code in (0, 3)
    assert [line for line in said.splitlines() if not WITH_COLON.match(line)] == []


def test_promtool_takes_the_alerts_and_their_tests() -> None:
    code, said = promtool("check", "rules", str(GRAFANA / "alerts.yaml"))
    assert (code, f"{len(ALERTS)} rules found" in said) == (0, True), said
    code, said = promtool("test", "rules", "alerts_test.yaml", cwd=GRAFANA)
    assert code == 0, said


def test_only_the_keys_that_the_recipe_names_read_the_numbers(server: Server) -> None:
    assert server.scrape("free").status_code == 403
    assert httpx.get(f"http://{server.address}/metrics").status_code == 401


def test_a_keeper_that_hangs_does_not_hold_up_a_scrape(server: Server) -> None:
    whole = server.scrape().text
    assert re.search(r'^slimmoa_up\{name="\w+:cpu",part="card"\} 1.0$', whole, re.MULTILINE)
    (keeper,) = [p for p in psutil.process_iter() if "RayKeeper" in p.name()]
    os.kill(keeper.pid, signal.SIGSTOP)
    try:
        time.sleep(1)  # as long as an answer is used again
        began = time.monotonic()
        left = server.scrape().text
        took_s = time.monotonic() - began
    finally:
        os.kill(keeper.pid, signal.SIGCONT)
    assert took_s < 4
    assert re.search(r'^slimmoa_up\{name="\w+:cpu",part="card"\} 0.0$', left, re.MULTILINE)
    assert "slimmoa_member_state{" not in left
    assert "slimmoa_answers_total{" in left
