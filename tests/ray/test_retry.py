"""Replicas that are killed with a call in flight, across real processes: a whole answer or an error."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from configs.schema import Recipe
from tests.conftest import Endpoint, Serving
from tests.e2e.processes import kill, until

DEADLINE_S = 60
FIRST_TOKEN_S = 3.0


@pytest.fixture(scope="module")
def journals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journals")


@pytest.fixture(scope="module")
def endpoint(serving: Serving, journals: Path) -> Iterator[Endpoint]:
    def model(name: str, **fields: Any) -> dict[str, Any]:
        journal = str(journals / f"{name}.jsonl")
        return {"engine": "scripted", "replicas": 2, "journal": journal, **fields}

    recipe = Recipe.model_validate(
        {
            "name": "mix",
            "models": {
                "quick": {"engine": "scripted", "tokens": 8},
                "slow": model("slow", first_token_s=FIRST_TOKEN_S, tokens=8),
                "writer": model("writer", first_token_s=FIRST_TOKEN_S, tokens=400, token_s=0.02),
                "lone": model("lone", replicas=1, first_token_s=FIRST_TOKEN_S),
            },
            "layers": [{"proposers": [{"model": "quick"}, {"model": "slow"}]}],
            "aggregator": {"model": "writer", "sampling": {"max_tokens": 400}},
            "limits": {"deadline_s": DEADLINE_S, "layer_deadline_s": 30, "keepalive_s": 0.2},
        }
    )
    with serving(recipe) as served:
        yield served


class Kills:
    """Kills the process that works on a question. The models' journals tell which one it is."""

    def __init__(self, journals: Path) -> None:
        self._journals = journals

    def pids(self, model: str, question: str) -> list[int]:
        """The processes of the replicas that took a call about the question, in order."""
        path = self._journals / f"{model}.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        calls = [json.loads(line) for line in lines]
        return [call["pid"] for call in calls if question in call["messages"][-1]["content"]]

    def kill(self, model: str, question: str) -> int:
        """Kill the first replica that takes the question, and return its process id."""
        until(lambda: bool(self.pids(model, question)))
        pid = self.pids(model, question)[0]
        kill(pid)
        return pid


@pytest.fixture
def kills(endpoint: Endpoint, journals: Path) -> Kills:  # noqa: ARG001  # of the served recipe
    """Kills replicas once all replicas of all models run."""
    from ray import serve

    def up() -> bool:
        states = [d.replica_states for d in serve.status().applications["slimmoa"].deployments.values()]
        counts = sum((Counter({str(s): n for s, n in each.items()}) for each in states), Counter[str]())
        return counts == {"RUNNING": 7}

    until(up)
    return Kills(journals)


def ask(endpoint: Endpoint, question: str, model: str = "mix", **fields: Any) -> Any:
    messages = [{"role": "user", "content": question}]
    return endpoint.client().chat.completions.create(model=model, messages=messages, **fields)


@pytest.mark.parametrize(("model", "streamed"), [("slow", True), ("writer", False)])
def test_a_replica_killed_before_its_first_token_costs_time_and_not_the_answer(
    endpoint: Endpoint, kills: Kills, model: str, streamed: bool
) -> None:
    question = f"before, {model}, {streamed}"

    def answer() -> tuple[str, dict[str, Any]]:
        if not streamed:
            whole = ask(endpoint, question)
            return whole.choices[0].message.content, whole.moa
        chunks = list(ask(endpoint, question, stream=True, extra_body={"moa": {"events": True}}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        return text, chunks[-1].moa

    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        answering = pool.submit(answer)
        killed = kills.kill(model, question)
        text, moa = answering.result()
    assert time.monotonic() - began < DEADLINE_S
    assert len(text.split()) == 400
    assert (moa["degraded"], moa["missing"], moa["fallback"]) == (False, [], None)
    assert [retried["model"] for retried in moa["retried"]] == [model]
    _, second = kills.pids(model, question)
    assert second != killed


def test_an_aggregator_killed_after_its_first_token_ends_the_stream_with_an_error(
    endpoint: Endpoint, kills: Kills
) -> None:
    texts: list[str] = []

    def read() -> None:
        for chunk in ask(endpoint, "after", stream=True):
            texts.extend(choice.delta.content for choice in chunk.choices if choice.delta.content)
            if len(texts) == 2:
                kills.kill("writer", "after")

    with pytest.raises(openai.APIError, match="writer") as ended:
        read()
    assert ended.value.code == "engine_unavailable"
    assert 2 <= len("".join(texts).split()) < 400
    assert len(kills.pids("writer", "after")) == 1


def test_where_there_is_no_other_replica_the_call_fails_or_waits_for_a_new_one(
    endpoint: Endpoint, kills: Kills
) -> None:
    """It waits if Serve has replaced the replica while the probe still waits; otherwise it fails."""
    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(ask, endpoint, "alone", "lone")
        killed = kills.kill("lone", "alone")
        error = asking.exception()
        if error is None:
            assert [retried["model"] for retried in asking.result().moa["retried"]] == ["lone"]
            assert kills.pids("lone", "alone")[-1] != killed
        else:
            assert isinstance(error, openai.InternalServerError)
            assert error.status_code == 503
    assert time.monotonic() - began < DEADLINE_S
