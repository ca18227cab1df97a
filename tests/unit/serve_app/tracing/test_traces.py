"""Traces of answers, read back from a collector."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from actors.engine import Delta
from configs.errors import BadRequest, EngineError, EngineUnavailable
from tests.otlp_collector import SpanRead
from tests.unit.scripts import Asked, Step
from tests.unit.serve_app.tracing.conftest import ANSWERED, Serve, Traced, named, recipe


def below(spans: Sequence[SpanRead], parent: SpanRead) -> list[SpanRead]:
    return [span for span in spans if span.parent == parent.id]


def ours(span: SpanRead) -> dict[str, Any]:
    prefix = "slimmoa."
    return {n.removeprefix(prefix): v for n, v in span.attributes.items() if n.startswith(prefix)}


def gen_ai(span: SpanRead) -> dict[str, Any]:
    return {n: v for n, v in span.attributes.items() if not n.startswith("slimmoa.")}


def degraded(model: str, attempt: int) -> Sequence[Step]:
    """What each model does: `two` is lost once, `slow` is never done, and `writer` fails."""
    match model, attempt:
        case "one", _:
            return [1.0, Delta(reasoning="thoughtword"), "proposalword", 0.5]
        case "two", 1:
            return [0.4, EngineUnavailable("lostword promptword", model="two")]
        case "two", _:
            waited = Delta(engine_s=0.25, queue_s=0.125, prompt_tokens=30, cached_tokens=20)
            return [0.6, "secondword", waited]
        case "slow", _:
            return [0.1, "slowword", None]
        case "writer", _:
            return [0.2, EngineError("failword proposalword", model="writer")]
        case _:
            return [0.3, "answerword", 0.7]


async def ask_degraded(serve: Serve, **fields: Any) -> tuple[Traced, dict[str, Any]]:
    attempts = Counter[str]()

    def script(asked: Asked) -> Sequence[Step]:
        attempts[asked.model] += 1
        return degraded(asked.model, attempts[asked.model])

    of = recipe(limits={"quorum": 2, "grace_s": 2})
    traced = serve(dict.fromkeys(of.models, script), of)
    traced.models.probing["two"] = 0.0
    messages = [
        {"role": "system", "content": "systemword"},
        {"role": "user", "content": "promptword"},
    ]
    said: dict[str, Any] = {"messages": messages, "stop": ["stopword"], "seed": 11, "user": "userword"}
    answer = await traced.ask(headers=[("x-request-id", "req-9")], **(said | fields))
    assert answer.status_code == 200
    return traced, answer.json() if not fields.get("stream") else {}


@pytest.mark.virtual_time
async def test_a_degraded_answer_with_a_retry_is_one_tree_whose_times_add_up(serve: Serve) -> None:
    traced, answer = await ask_degraded(serve)
    assert answer["choices"][0]["message"]["content"] == "answerword"
    spans = traced.spans()
    root = named(spans, "invoke_workflow mix")
    layer, aggregator = below(spans, root)
    assert [layer.name, aggregator.name] == ["layer 1", "aggregator"]
    in_layer, at_end = below(spans, layer), below(spans, aggregator)
    assert sorted(s.name for s in in_layer) == ["chat one", "chat slow", "chat two", "chat two"]
    assert [s.name for s in at_end] == ["chat writer", "chat spare"]
    assert len(spans) == 9
    assert {s.trace for s in spans} == {root.trace}
    assert len({s.id for s in spans}) == 9
    assert (root.parent, root.kind) == ("", "SERVER")
    assert {s.kind for s in (layer, aggregator)} == {"INTERNAL"}
    assert {s.kind for s in (*in_layer, *at_end)} == {"CLIENT"}

    for parent, children in ((root, (layer, aggregator)), (layer, in_layer), (aggregator, at_end)):
        assert all(parent.holds(child) for child in children)
    lost, again = (s for s in in_layer if s.name == "chat two")
    seconds = [named(spans, n).seconds for n in ("chat one", "chat slow", "chat writer", "chat spare")]
    assert seconds == pytest.approx([1.5, 3.5, 0.2, 1.0])
    assert [lost.seconds, again.seconds] == pytest.approx([0.4, 0.6])
    assert layer.seconds == pytest.approx(3.5)
    assert lost.ended < again.began < layer.ended <= aggregator.began
    assert at_end[0].ended <= at_end[1].began
    assert aggregator.seconds == pytest.approx(1.2)
    assert root.seconds == pytest.approx(layer.seconds + aggregator.seconds, abs=1e-6)
    for span in spans:
        assert all(span.began <= at <= span.ended for at in span.event_times)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.virtual_time
async def test_a_degraded_answer_says_what_was_lost_late_and_dropped(
    serve: Serve, stream: bool
) -> None:
    """The trace says no more than this. Only the stream's client learns that a model thinks."""
    traced, _ = await ask_degraded(
        serve, **({"stream": True, "moa": {"events": True}} if stream else {})
    )
    spans = traced.spans()
    root, layer, aggregator = (
        named(spans, name) for name in ("invoke_workflow mix", "layer 1", "aggregator")
    )
    assert ours(root) == {
        "request_id": "req-9",
        "key": "anyone",
        "stream": stream,
        "degraded": True,
        "answered_by": "spare",
        "fallback": "aggregator",
        "finish_reason": "stop",
        "seed": 11,
        "missing": 2,
        "retried": 1,
        "calls": 3,
        "input_tokens": sum(s.attributes.get("gen_ai.usage.input_tokens", 0) for s in spans),
        "output_tokens": 3,
    }
    assert gen_ai(root) == {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.agent.name": "mix",
        "gen_ai.workflow.name": "mix",
    }
    assert ours(layer) == {"references": 0}
    assert ours(aggregator) == {"references": 2}
    assert layer.events == [
        ("slimmoa.retried", {"slimmoa.model": "two"}),
        (
            "slimmoa.late",
            {"slimmoa.model": "slow", "slimmoa.cause": "late", "slimmoa.place": 2},
        ),
    ]
    assert aggregator.events == [
        ("slimmoa.dropped", {"slimmoa.model": "writer", "slimmoa.cause": "engine_error"}),
        ("slimmoa.fallback", {"slimmoa.model": "spare", "slimmoa.fallback": "aggregator"}),
    ]
    failures = {(s.name, s.attributes["error.type"]) for s in spans if s.has_failed}
    assert failures == {
        ("chat two", "engine_unavailable"),
        ("chat slow", "late"),
        ("chat writer", "engine_error"),
    }
    assert {s.message for s in spans} == {""}


@pytest.mark.virtual_time
async def test_a_call_has_the_attributes_of_the_conventions(serve: Serve) -> None:
    traced, _ = await ask_degraded(serve, stream=True)
    spans = traced.spans()
    asked = {call.model: call for call in traced.models.asked}
    one = gen_ai(named(spans, "chat one"))
    assert one == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "one",
        "gen_ai.request.stream": True,
        "gen_ai.response.time_to_first_chunk": pytest.approx(1.0),
        "gen_ai.request.temperature": 0.25,
        "gen_ai.request.max_tokens": 512,
        "gen_ai.request.seed": asked["one"].sampling.seed,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": one["gen_ai.usage.input_tokens"],
        "gen_ai.usage.output_tokens": 1,
    }
    assert one["gen_ai.usage.input_tokens"] > 0
    spare = gen_ai(named(spans, "chat spare"))
    assert spare["gen_ai.response.time_to_first_chunk"] == pytest.approx(0.3)
    assert {name: spare[name] for name in spare if "usage" not in name and "time" not in name} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "spare",
        "gen_ai.response.model": "far-7b",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 99,
        "gen_ai.request.seed": 11,
        "gen_ai.response.finish_reasons": ["stop"],
        "server.address": "far",
        "server.port": 8123,
    }
    _, again = (s for s in spans if s.name == "chat two")
    assert ours(again) == {"engine_s": 0.25, "queue_s": 0.125}
    assert again.attributes["gen_ai.usage.cache_read.input_tokens"] == 20
    # A model on a server that samples by its own defaults says nothing of its temperature.
    assert "gen_ai.request.temperature" not in again.attributes
    assert again.attributes["gen_ai.request.max_tokens"] == 64


@pytest.mark.virtual_time
async def test_no_text_of_a_prompt_a_proposal_an_answer_or_an_error_is_sent(serve: Serve) -> None:
    for stream in (False, True):
        traced, _ = await ask_degraded(serve, stream=stream)
        assert len(traced.spans()) == 9 * (1 + stream)
    sent = b"".join(traced.collector.bodies)
    assert b"req-9" in sent
    for word in (
        *("promptword", "systemword", "stopword", "userword", "proposalword", "thoughtword"),
        *("secondword", "slowword", "answerword", "lostword", "failword", "hello"),
    ):
        assert word.encode() not in sent


async def test_a_model_that_answers_alone_is_one_span_and_its_calls(serve: Serve) -> None:
    traced = serve({"one": ["hi ", "there"]})
    assert (await traced.ask(model="one", temperature=0.5)).status_code == 200
    root, call = traced.spans()
    assert (root.name, root.kind, root.attributes["gen_ai.request.model"]) == (
        "chat one",
        "SERVER",
        "one",
    )
    assert (call.name, call.kind, call.parent) == ("chat one", "CLIENT", root.id)
    # The tokens of a trace are added up over its calls, so the answer has none under that name.
    assert not any("usage" in name for name in root.attributes)
    assert call.attributes["gen_ai.usage.output_tokens"] == 2
    assert call.attributes["gen_ai.request.temperature"] == 0.5
    assert root.holds(call)


async def test_an_answer_that_fails_says_how(serve: Serve) -> None:
    failing = {name: [EngineError("failword")] for name in ("one", "two", "slow")}
    traced = serve(failing)
    assert (await traced.ask()).status_code == 503
    refused = await traced.ask(model="none")
    assert refused.status_code == 404
    spans = traced.spans()
    root = named(spans, "invoke_workflow mix")
    assert root.has_failed
    assert root.attributes["error.type"] == "quorum_not_met"
    assert len(spans) == 5  # nothing of the request that was refused
    assert b"failword" not in b"".join(traced.collector.bodies)


async def test_an_aggregator_that_fails_in_its_text_ends_its_stage_with_the_error(serve: Serve) -> None:
    traced = serve(ANSWERED | {"writer": ["begun", BadRequest("broken")], "spare": []})
    assert (await traced.ask(stream=True)).status_code == 200
    spans = traced.spans()
    for name in ("invoke_workflow mix", "aggregator", "chat writer"):
        span = named(spans, name)
        assert (span.has_failed, span.attributes["error.type"]) == (True, "invalid_request")
    assert not named(spans, "layer 1").has_failed


async def test_a_client_that_leaves_ends_every_span_without_an_error(serve: Serve) -> None:
    traced = serve(ANSWERED | {"slow": [None]})
    asking = asyncio.create_task(traced.ask())
    while len(traced.models.asked) < 3:  # noqa: ASYNC110  # until the calls have begun
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    spans = traced.spans()
    root, layer = named(spans, "invoke_workflow mix"), named(spans, "layer 1")
    slow = named(spans, "chat slow")
    for span in (root, layer, slow):
        assert span.attributes["slimmoa.stopped"] is True
        assert not span.has_failed
    assert root.holds(layer)
    assert layer.holds(slow)


@pytest.mark.virtual_time
async def test_an_answer_that_the_deadline_cuts_says_so(serve: Serve) -> None:
    of = recipe(limits={"deadline_s": 3, "layer_deadline_s": 2, "keepalive_s": 1})
    traced = serve(ANSWERED | {"writer": [0.5, "begun", None]}, of)
    assert (await traced.ask(stream=True)).status_code == 200
    spans = traced.spans()
    root, writer = named(spans, "invoke_workflow mix"), named(spans, "chat writer")
    assert ours(root)["cut"] is True
    assert ours(root)["degraded"] is True
    assert writer.attributes["error.type"] == "late"
    assert writer.seconds == pytest.approx(3)
    assert named(spans, "aggregator").events == [("slimmoa.late", {"slimmoa.model": "writer"})]


async def test_the_name_that_a_client_gives_the_writer_of_a_proposal_is_not_sent(
    serve: Serve,
) -> None:
    failing = [EngineError("broken")]
    traced = serve({"writer": failing, "spare": failing})
    given = {"proposals": [{"model": "labelword", "text": "givenword"}]}
    answer = (await traced.ask(moa={"fuse": given})).json()
    assert answer["choices"][0]["message"]["content"] == "givenword"
    spans = traced.spans()
    assert ours(named(spans, "invoke_workflow mix"))["answered_by"] == "(given)"
    _, _, fallback = named(spans, "aggregator").events
    assert fallback == (
        "slimmoa.fallback",
        {"slimmoa.model": "(given)", "slimmoa.fallback": "reference"},
    )
    assert not [span for span in spans if span.name == "layer 1"]
    for word in (b"labelword", b"givenword"):
        assert word not in b"".join(traced.collector.bodies)


async def test_references_that_were_cut_are_told(serve: Serve) -> None:
    long = " ".join(["word"] * 400)
    traced = serve(ANSWERED | {"one": [long], "two": [long]})
    assert (await traced.ask()).status_code == 200
    (event,) = named(traced.spans(), "aggregator").events
    name, facts = event
    assert name == "slimmoa.trimmed"
    assert facts["slimmoa.model"] == "writer"
    assert facts["slimmoa.tokens_removed"] > 100
