"""The embedded default: two real quantized models, real Ray Serve, the real client over real HTTP."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from configs.load import load
from tests.conftest import Endpoint, Serving

pytestmark = pytest.mark.weights

EVENTS: Any = {"moa": {"events": True}}
SKY: Any = [{"role": "user", "content": "Why is the sky blue? Answer in two sentences."}]
PROPOSERS = {"smollm2-135m", "qwen2.5-coder-0.5b"}
ERROR_FIELDS = {"message", "type", "param", "code", "model", "request_id"}


@pytest.fixture(scope="module")
def endpoint(serving: Serving) -> Iterator[Endpoint]:
    with serving(load("tiny_cpu")) as served:
        yield served


def test_a_whole_answer_is_made_from_two_real_models(endpoint: Endpoint) -> None:
    answer = endpoint.client().chat.completions.create(
        model="slimmoa-tiny", messages=SKY, seed=1, extra_body=EVENTS
    )
    assert len(answer.choices[0].message.content.split()) > 3
    assert answer.moa["degraded"] is False
    proposals = {p["model"]: p["text"] for p in answer.moa["proposals"]}
    assert set(proposals) == PROPOSERS
    assert len(set(proposals.values())) == 2
    rows = {(r["model"], r["role"]): r for r in answer.usage.by_model}
    assert set(rows) == {(m, "proposer") for m in PROPOSERS} | {("qwen2.5-coder-0.5b", "aggregator")}
    writer = rows["qwen2.5-coder-0.5b", "aggregator"]
    assert answer.usage.completion_tokens == writer["completion_tokens"]
    written = answer.usage.all_calls["completion_tokens"]
    assert written == sum(r["completion_tokens"] for r in rows.values())
    # The aggregator read the question and both proposals.
    proposed = sum(r["completion_tokens"] for (_, role), r in rows.items() if role == "proposer")
    assert writer["prompt_tokens"] > proposed


def test_a_stream_shows_the_proposals_grow_and_then_the_answer(endpoint: Endpoint) -> None:
    stream = endpoint.client().chat.completions.create(
        model="slimmoa-tiny",
        messages=SKY,
        seed=1,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=EVENTS,
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    events = [chunk.moa for chunk in chunks if getattr(chunk, "moa", None)]
    kinds = [event["type"] for event in events]
    assert kinds.index("proposal.delta") < kinds.index("proposal.done") < kinds.index("stage.done")
    assert kinds[-1] == "summary"
    grown: dict[str, str] = {}
    for event in events:
        if event["type"] == "proposal.delta":
            grown[event["model"]] = grown.get(event["model"], "") + event["text"]
    done = {event["model"]: event["text"] for event in events if event["type"] == "proposal.done"}
    assert {model: text.strip() for model, text in grown.items()} == done
    assert set(done) == PROPOSERS
    assert done["smollm2-135m"] != done["qwen2.5-coder-0.5b"]
    written = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert len(written) > 3
    assert chunks[-1].usage.total_tokens > 0


def test_browsers_get_the_page_from_the_same_port(endpoint: Endpoint) -> None:
    page = httpx.get(endpoint.base_url, headers={"accept": "text/html"})
    assert (page.status_code, page.headers["cache-control"]) == (200, "no-cache")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    (script,) = re.findall(r'src="(page/[^"]+\.js)"', page.text)
    loaded = httpx.get(f"{endpoint.base_url}/{script}")
    assert "immutable" in loaded.headers["cache-control"]
    assert loaded.headers["content-encoding"] == "gzip"
    assert httpx.get(endpoint.base_url).status_code == 404  # a client with a wrong base URL


def test_given_proposals_are_fused_without_asking_a_proposer(endpoint: Endpoint) -> None:
    given = [{"model": "somebody", "text": "Air scatters blue light most."}]
    before = endpoint.stats("smollm2-135m").started
    answer = endpoint.client().chat.completions.create(
        model="slimmoa-tiny",
        messages=SKY,
        max_tokens=8,
        extra_body={"moa": {"fuse": {"proposals": given, "aggregator": "qwen2.5-coder-0.5b"}}},
    )
    assert answer.choices[0].message.content
    assert [stage["stage"] for stage in answer.moa["stages"]] == ["aggregator"]
    assert endpoint.stats("smollm2-135m").started == before


def test_the_same_seed_gives_the_same_answer(endpoint: Endpoint) -> None:
    client = endpoint.client()
    texts = {
        client.chat.completions.create(
            model="smollm2-135m", messages=SKY, seed=7, max_tokens=24, temperature=1.0
        )
        .choices[0]
        .message.content
        for _ in range(2)
    }
    assert len(texts) == 1


def test_one_model_asked_directly_gives_logprobs_of_its_tokens(endpoint: Endpoint) -> None:
    answer = endpoint.client().chat.completions.create(
        model="smollm2-135m", messages=SKY, max_tokens=4, logprobs=True, top_logprobs=3, temperature=0
    )
    tokens = answer.choices[0].logprobs.content
    assert "".join(t.token for t in tokens).strip() == answer.choices[0].message.content.strip()
    for token in tokens:
        assert len(token.top_logprobs) == 3
        assert token.logprob == max(t.logprob for t in token.top_logprobs)  # greedy


def test_a_conversation_that_is_too_long_is_refused_with_the_sums(endpoint: Endpoint) -> None:
    client = endpoint.client()
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="slimmoa-tiny", messages=[{"role": "user", "content": "lighthouse " * 4000}]
        )
    assert refused.value.code == "context_length_exceeded"
    assert "4096" in refused.value.message
    assert "too many" in refused.value.message
    assert client.chat.completions.create(model="smollm2-135m", messages=SKY, max_tokens=2).choices


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"model": "slimmoa-tiny", "messages": [', 400),
        (b'{"model": "slimmoa-tiny", "messages": []}', 400),
        (b"\xff\xfe", 400),
        (json.dumps({"model": "nobody", "messages": SKY}).encode(), 404),
        (json.dumps({"model": "slimmoa-tiny", "messages": SKY, "n": 2}).encode(), 400),
        (b"x" * 2_000_000, 413),
    ],
)
def test_bad_input_over_the_real_listener_gets_an_error_in_openais_shape(
    endpoint: Endpoint, body: bytes, status: int
) -> None:
    url = f"{endpoint.base_url}/v1/chat/completions"
    refused = httpx.post(url, content=body, headers={"content-type": "application/json"})
    assert refused.status_code == status
    assert set(refused.json()["error"]) == ERROR_FIELDS
    assert refused.headers["x-request-id"]
    good = httpx.post(url, json={"model": "smollm2-135m", "messages": SKY, "max_tokens": 2}, timeout=60)
    assert good.status_code == 200


CLIENT = """
import sys
from openai import OpenAI
stream = OpenAI(base_url=sys.argv[1], api_key="none").chat.completions.create(
    model="slimmoa-tiny", stream=True, extra_body={"moa": {"events": True}}, max_tokens=2000,
    messages=[{"role": "user", "content": "Write a very long story about a lighthouse."}])
for chunk in stream:
    moa = getattr(chunk, "moa", None)
    print(moa["type"] if moa else "answer" if chunk.choices[0].delta.content else "role", flush=True)
"""


@pytest.mark.parametrize("sign", ["proposal.delta", "answer"], ids=["proposers", "aggregator"])
def test_killing_the_client_stops_every_engine_within_a_second(endpoint: Endpoint, sign: str) -> None:
    command = [sys.executable, "-c", CLIENT, f"{endpoint.base_url}/v1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert any(line.strip() == sign for line in client.stdout)
        before = {model: endpoint.stats(model) for model in PROPOSERS}
        (working,) = [model for model, now in before.items() if now.in_flight]  # the others wait
        os.kill(client.pid, signal.SIGKILL)
        killed = time.monotonic()
        while any(now.in_flight or now.waiting for now in map(endpoint.stats, PROPOSERS)):
            assert time.monotonic() - killed < 1
    after = {model: endpoint.stats(model) for model in PROPOSERS}
    assert after[working].cancelled == before[working].cancelled + 1
    assert {m: now.started for m, now in after.items()} == {m: was.started for m, was in before.items()}
    answer = endpoint.client().chat.completions.create(model="smollm2-135m", messages=SKY, max_tokens=2)
    assert answer.choices[0].message.content
