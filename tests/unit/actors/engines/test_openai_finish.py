"""How the endings of many servers are read: the table, and what an engine makes of each kind."""

import asyncio

import pytest

from actors.engines import openai_http
from actors.engines.openai_finish import TABLE, read_ending
from configs.errors import EngineError, Overloaded
from tests.unit.actors.engines.http_servers import (
    DONE,
    Connect,
    answer,
    chunk,
    disconnect,
    hang,
    piecewise,
    whole,
)
from tests.unit.actors.engines.http_servers import text as text_of

READ = {
    "stop": """stop STOP end_turn stop_sequence eos EOS eos_token COMPLETE finished endoftext
        tool_calls function_call tool_use TOOL_CALL toolCalls FinishReason.STOP FINISH_REASON_STOP
        eosFound stopStringFound function_call_filter:MALFORMED_FUNCTION_CALL something_new""",
    "length": """length max_tokens MAX_TOKENS max-tokens maxTokens model_length token_limit limit
        maxPredictedTokensReached contextLengthReached model_context_window_exceeded ERROR_LIMIT
        max_output_tokens length_capped""",
    "content_filter": """content_filter content-filter SAFETY RECITATION BLOCKLIST PROHIBITED_CONTENT
        SPII guardrail_intervened content_filtered sensitive ERROR_TOXIC refusal
        content_filter:RECITATION blocked_by_admin""",
    "500": "error ERROR failed OTHER malformed_model_output provider_error_x server_error",
    "502": "network_error",
    "503": "abort aborted cancelled USER_CANCEL insufficient_system_resource request_aborted",
    "504": "TIMEOUT time_limit timed_out",
    "429": "rate_limit",
    "None": "null None NOT_FINISHED FINISH_REASON_UNSPECIFIED",
}


@pytest.mark.parametrize(
    ("said", "kind"), [(said, kind) for kind, words in READ.items() for said in words.split()]
)
def test_an_ending_is_read_in_the_words_of_every_server(said: str, kind: str) -> None:
    ending = read_ending(said)
    if ending is None:
        assert kind == "None"
    else:
        assert kind == (str(ending.status) if ending.status else ending.reason)


def test_the_table_has_small_letters_only_and_each_word_once() -> None:
    assert all(word.isalpha() and word == word.lower() for word in TABLE)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("middle", ["", "null", "NOT_FINISHED"])
async def test_a_reason_in_every_chunk_ends_nothing_before_the_end(
    connect: Connect, middle: str, streamed: bool
) -> None:
    body = chunk("Hel", middle) + chunk("lo", middle)
    engine, _ = await connect(whole(body + chunk("", "stop") + DONE))
    deltas = await answer(engine, streamed=streamed)
    assert text_of(deltas) == "Hello"
    assert [d.finish_reason for d in deltas if d.finish_reason] == ["stop"]
    for broken in (whole(body), piecewise(body, then=disconnect)):
        engine, server = await connect(broken)
        with pytest.raises(EngineError):
            await answer(engine, streamed=streamed)
        assert len(server.requests) == 1


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_a_cut_answer_says_so(connect: Connect, reason: str) -> None:
    engine, _ = await connect(whole(chunk("Hel") + chunk(None, reason) + DONE))
    deltas = await answer(engine)
    assert text_of(deltas) == "Hel"
    assert [d.finish_reason for d in deltas if d.finish_reason] == [reason]


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_server_that_sends_no_done_does_not_hold_up_the_answer(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    monkeypatch.setattr(openai_http, "COUNTS_S", 0.01)
    engine, _ = await connect(piecewise(chunk("Hello", "stop"), then=hang))
    async with asyncio.timeout(5):
        assert text_of(await answer(engine, streamed=streamed)) == "Hello"


REFUSAL = 'data: {"choices": [{"delta": {"refusal": "I cannot."}, "finish_reason": null}]}\n\n'


@pytest.mark.parametrize("end", [chunk(None, "stop") + DONE, DONE], ids=["stop", "no reason"])
async def test_a_refusal_is_text_and_counts_as_filtered(connect: Connect, end: str) -> None:
    engine, _ = await connect(whole(REFUSAL + end))
    deltas = await answer(engine)
    assert text_of(deltas) == "I cannot."
    assert [d.finish_reason for d in deltas if d.finish_reason] == ["content_filter"]


FAILED = (
    'data: {"choices": [{"delta": {"content": ""}, "finish_reason": "error", '
    '"error": {"code": %s, "message": "Provider disconnected"}}]}\n\n'
)


@pytest.mark.parametrize(("code", "error"), [(502, EngineError), (429, Overloaded)])
async def test_an_answer_that_failed_is_an_error_in_the_servers_words(
    connect: Connect, code: int, error: type[Exception]
) -> None:
    engine, server = await connect(whole(FAILED % code + DONE))
    with pytest.raises(error, match="Provider disconnected") as failure:
        await answer(engine)
    assert type(failure.value) is error
    assert len(server.requests) == 3  # before the first token the call is tried again
    engine, server = await connect(whole(chunk("Hel") + FAILED % code + DONE))
    with pytest.raises(error, match="Provider disconnected"):
        await answer(engine)
    assert len(server.requests) == 1


async def test_a_failure_without_words_names_its_reason(connect: Connect) -> None:
    engine, _ = await connect(whole(chunk("Hel") + chunk(None, "insufficient_system_resource") + DONE))
    with pytest.raises(EngineError, match="finish_reason 'insufficient_system_resource'"):
        await answer(engine)
