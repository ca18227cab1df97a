"""The trace of a request goes through an answer: from the client, and on to other servers."""

import pytest

from tests.unit.serve_app.tracing.conftest import ANSWERED, Serve, named

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


async def test_an_answer_joins_the_trace_of_its_client(serve: Serve) -> None:
    traced = serve(ANSWERED)
    headers = [("traceparent", TRACEPARENT), ("tracestate", "a=1"), ("tracestate", "b=2")]
    await traced.ask(headers=headers)
    spans = traced.spans()
    root = named(spans, "invoke_workflow mix")
    assert (root.trace, root.parent) == (TRACE, PARENT)
    assert {span.trace for span in spans} == {TRACE}
    assert {span.state for span in spans} == {"a=1,b=2"}
    two = named(spans, "chat two")
    assert traced.models.origins == [
        {"traceparent": f"00-{TRACE}-{two.id}-01", "tracestate": "a=1,b=2"}
    ]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("traceparent", "")],
        [("traceparent", "00-1-2-01")],
        [("traceparent", TRACEPARENT.upper())],
        [("traceparent", TRACEPARENT + "-more")],
        [("traceparent", "ff" + TRACEPARENT[2:])],
        [("traceparent", f"00-{'0' * 32}-{PARENT}-01")],
        [("traceparent", f"00-{TRACE}-{'0' * 16}-01")],
        [("traceparent", "0" * 10_000)],
        [("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)],
        [("tracestate", "a=1")],
    ],
    ids=range(11),
)
async def test_a_malformed_trace_begins_a_new_one(serve: Serve, headers: list[tuple[str, str]]) -> None:
    traced = serve({"one": ["hi"]})
    assert (await traced.ask(model="one", headers=headers)).status_code == 200
    root, call = traced.spans()
    assert root.parent == ""
    assert TRACE not in (root.trace, call.trace)
    assert root.state == ""


@pytest.mark.parametrize("state", ["=", "a=1" * 400, "a=1,,=,b", "\u00e9"], ids=range(4))
async def test_a_malformed_state_of_a_trace_costs_only_what_cannot_be_read(
    serve: Serve, state: str
) -> None:
    traced = serve({"one": ["hi"]})
    sent = [("traceparent", TRACEPARENT), ("tracestate", state)]
    assert (await traced.ask(model="one", headers=sent)).status_code == 200
    assert {(span.trace, span.parent == PARENT) for span in traced.spans()} == {
        (TRACE, True),
        (TRACE, False),
    }


async def test_what_the_client_does_not_sample_is_not_sent_but_passed_on(serve: Serve) -> None:
    traced = serve(ANSWERED)
    await traced.ask(headers=[("traceparent", TRACEPARENT.removesuffix("1") + "0")])
    (origin,) = traced.models.origins
    version, trace, span, flags = origin["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "00")
    assert span != PARENT
    assert traced.spans() == []


async def test_a_sampler_of_the_environment_decides_where_the_client_says_nothing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    traced = serve({"one": ["hi"]})
    await traced.ask(model="one")
    await traced.ask(model="one", headers=[("traceparent", TRACEPARENT)])
    assert {span.trace for span in traced.spans()} == {TRACE}
