"""`slimmoa status`: the view of a state, and what is said where there is none."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cli.main import app
from cli.status_troubles import troubles
from cli.status_view import seconds, status_text

MEMBER = {
    "name": "big/0",
    "slot": "0",
    "state": "resident",
    "turn": "open",
    "in_flight": 2,
    "waiting": 0,
    "oldest_wait_s": 0.0,
    "since_s": 600.0,
    "expected_s": None,
    "last_step_s": 3.25,
    "failure": "",
    "awake_bytes": 40 << 30,
    "asleep_bytes": 1 << 30,
    "orders": {},
    "step_seconds": {},
}
RATES = {
    "window_s": 60.0,
    "answers": 4,
    "degraded": 1,
    "failed": 0,
    "left": 2,
    "tokens_in": 600,
    "tokens_out": 120,
    "refused": {"invalid_api_key": 3},
    "models": {
        "big": {
            "calls": 3,
            "tokens_out": 90,
            "dropped": {"late": 1},
            "failing": 0,
            "last_cause": "late",
            "last_why": None,
            "last_missing_at": 990.0,
        }
    },
}
STATE: dict[str, Any] = {
    "mixture": {"name": "mix"},
    "models": ["mix"],
    "cards": [
        {
            "node": "0123456789abcdef",
            "gpus": [0, 1],
            "name": "NVIDIA L4",
            "total_bytes": 48 << 30,
            "members": [MEMBER, MEMBER | {"name": "small/0", "state": "asleep", "turn": "closed"}],
        }
    ],
    "at": 1000.0,
    "without_card": [
        {
            "name": "cloud",
            "engine": "openai_http",
            "is_up": True,
            "why": "",
            "in_flight": 1,
            "waiting": 0,
        }
    ],
    "in_work": 2,
    "oldest_s": 7.25,
    "capacity": [{"name": "big", "taken": 3, "capacity": 16}],
    "rates": RATES,
    "answers": [
        {
            "at": 999.0,
            "request_id": "req-7",
            "key": "alice",
            "model": "mix",
            "outcome": "degraded",
            "seconds": 12.44,
            "tokens_in": 150,
            "tokens_out": 30,
            "missing": ["big:late"],
            "by": "small",
            "code": None,
        }
    ],
    "refusals": [
        {
            "at": 999.0,
            "request_id": "req-8\x1b[2J",
            "key": None,
            "path": "/v1/models",
            "status": 401,
            "code": "invalid_api_key",
            "why": "this API key is not known here",
        }
    ],
}


def test_the_view_has_all_in_columns() -> None:
    text = status_text(STATE, "http://h/v1", now=1000.0)
    assert text.splitlines()[:3] == [
        "mix at http://h/v1: 2 in work, the oldest for 7.2 s",
        "last 60 s: 4 answers, 25% degraded, 0 failed, 2 left by their clients; "
        "2.0 tokens/s written, 10 read",
        "refused: 3 invalid_api_key",
    ]
    assert "look at this" not in text
    assert "GPU 0+1 NVIDIA L4 (node 01234567): 41.0 of 48.0 GiB held by the plan" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["0", "big/0", "awake", "10", "min", "open", "2", "0", "40.0", "GiB", "3.2", "s"] in rows
    assert ["cloud", "openai_http", "1", "0", "up"] in rows
    assert ["big", "3", "1.5", "3", "of", "16", "1", "late"] in rows
    (answer,) = [row for row in rows if "req-7" in row]
    assert answer[2:] == ["alice", "mix", "12.4", "150+30", "degraded", "big:late"]
    assert "req-8?[2J" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (
            {"state": "failed", "failure": "CUDA out of memory", "waiting": 1},
            "big/0 has failed: CUDA out of memory; 1 call waits for it",
        ),
        (
            {"state": "absent", "since_s": 12.0},
            "big/0 has no replica for 12 s; no call waits for it at this moment",
        ),
        (
            {"state": "starting", "since_s": 3.0, "expected_s": 90.0, "failure": "it fell"},
            "big/0 failed and is started again: it fell; no call waits for it at this moment",
        ),
    ],
    ids=["failed", "absent", "restarted"],
)
def test_engines_in_trouble_are_named(member: dict[str, Any], said: str) -> None:
    card = STATE["cards"][0] | {"members": [MEMBER | member]}
    assert troubles(STATE | {"cards": [card]}, 1000.0) == [said]


@pytest.mark.parametrize("since_s", [2.0, 4.9, 8.9])
def test_a_step_that_takes_its_time_is_no_trouble(since_s: float) -> None:
    member = MEMBER | {"state": "waking", "since_s": since_s, "expected_s": 3.0}
    assert troubles(STATE | {"cards": [STATE["cards"][0] | {"members": [member]}]}, 1000.0) == []


def test_a_model_that_takes_no_calls_is_named() -> None:
    cloud = STATE["without_card"][0] | {"why": "no replica of model 'cloud' runs"}
    said = troubles(STATE | {"without_card": [cloud]}, 1000.0)
    assert said == ["cloud takes no calls: no replica of model 'cloud' runs"]


def test_times_are_short() -> None:
    said = [seconds(value) for value in (0.04, 9.96, 12, 179, 200, 7199, 9000)]
    assert said == ["0.0 s", "10.0 s", "12 s", "179 s", "3 min", "120 min", "2.5 h"]


@contextmanager
def answering(status: int, body: Any) -> Iterator[str]:
    """Start a server that gives this answer to every request. Returns the URL of the server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["status", *arguments])


def test_the_state_is_printed_once_where_the_output_is_no_terminal() -> None:
    with answering(200, STATE) as url:
        shown, as_json = run("--url", url), run("--url", url, "--json")
    assert shown.exit_code == 0
    assert shown.stdout.startswith(f"mix at {url}: 2 in work")
    assert json.loads(as_json.stdout) == STATE


ERROR = {"error": {"message": "this API key is not known here", "type": "x", "code": "invalid_api_key"}}


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, ERROR, "this API key is not known here"),
        (404, {"detail": "Not Found"}, "tells no state: it is another server, or an older SlimMoA"),
        (200, {"mixture": {}}, "tells no state: it is another server, or an older SlimMoA"),
        (200, [], "tells no state"),
        (200, "text", "is not an OpenAI-compatible API"),
    ],
    ids=["key", "other", "old", "list", "text"],
)
def test_what_is_no_state_is_said_in_a_line(status: int, body: Any, said: str) -> None:
    with answering(status, body) as url:
        shown = run("--url", url)
    assert shown.exit_code == 1
    assert said in shown.stderr.replace("\n", " ")
    assert len(shown.stderr.splitlines()) == 1


def test_the_shape_of_the_log_is_an_option_or_a_variable_and_goes_into_an_export(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exported(*arguments: str) -> Any:
        done = CliRunner().invoke(app, ["export", "scripted", *arguments])
        return yaml.safe_load(done.stdout) if done.exit_code == 0 else done.stderr

    monkeypatch.delenv("SLIMMOA_LOG", raising=False)
    assert "log" not in exported()["applications"][0]["args"]
    assert exported("--log", "json")["applications"][0]["args"]["log"] == "json"
    monkeypatch.setenv("SLIMMOA_LOG", "text")
    assert exported()["applications"][0]["args"]["log"] == "text"
    assert "it has to be text or json" in exported("--log", "xml")


def test_a_port_where_nothing_listens_is_said_with_the_api_root() -> None:
    with answering(200, STATE) as url:
        pass
    shown = run("--url", url)
    assert shown.exit_code == 1
    assert f"nothing answers at {url} (" in shown.stderr
