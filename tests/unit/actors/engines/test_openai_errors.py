"""Errors of servers in all their shapes: the words are kept, and the class is that of the status."""

import json
from typing import Any

import pytest

from actors.engines.openai_errors import fault_of, fault_of_page, fault_of_response, words_of_body
from configs.errors import (
    BadRequest,
    ContentFiltered,
    ContextTooLong,
    EngineError,
    Overloaded,
    RequestError,
    TemplateRefused,
)
from tests.unit.actors.engines.http_servers import DONE, HELLO, Connect, answer, refusal, text, whole

SHAPES: list[tuple[Any, int, str]] = [
    ({"error": {"message": "Rate limit exceeded", "code": 429}}, 429, "Rate limit exceeded"),
    ({"error": {"message": "m", "code": "rate_limit_exceeded"}}, 429, "m"),
    ({"error": {"message": "Slow down", "type": "tokens_rate_limit"}}, 429, "Slow down"),
    ({"error": "Too many requests"}, 429, "Too many requests"),
    ({"error": "CUDA out of memory"}, 500, "CUDA out of memory"),
    ({"error": True, "message": "broken", "statusCode": 503}, 503, "broken"),
    ({"object": "error", "message": "CUDA out of memory", "code": 50001}, 500, "CUDA out of memory"),
    ({"object": "error", "message": "slow", "code": 42901}, 429, "slow"),
    ({"object": "error", "message": {"detail": [{"msg": "Extra"}]}, "code": 422}, 422, "Extra"),
    ({"detail": "Not authenticated"}, 401, "Not authenticated"),
    ({"detail": [{"loc": ["body", "x"], "msg": "Field required"}]}, 422, "body.x: Field required"),
    ({"title": "Bad Gateway", "status": 502, "detail": "no host"}, 502, "Bad Gateway: no host"),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "Busy"}}, 503, "Busy"),
    ([{"error": {"code": 400, "message": "bad", "status": "INVALID_ARGUMENT"}}], 400, "bad"),
    ({"error": {"message": "gone", "status": "UNAVAILABLE"}}, 503, "gone"),
    ({"code": "InvalidApiKey", "message": "wrong key", "request_id": "1"}, 401, "wrong key"),
    ({"errors": [{"code": 7003, "message": "no route"}], "success": False}, 500, "no route"),
    ({"error_code": 336501, "error_msg": "rate limit reached"}, 429, "rate limit reached"),
    ({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, 402, "insuff"),
    (
        {
            "error": {
                "message": "Provider returned error",
                "code": 502,
                "metadata": {"raw": "out of RAM"},
            }
        },
        502,
        "Provider returned error: out of RAM",
    ),
    ({"error": {"message": '{"error": {"message": "inner"}}', "code": 500}}, 500, "inner"),
    ({"error": {"message": "line\none\t\x1b[31m"}}, 500, "line one [31m"),
]


@pytest.mark.parametrize(("said", "status", "words"), SHAPES, ids=lambda v: str(v)[:40])
def test_an_error_under_status_200_is_found_in_every_shape(said: Any, status: int, words: str) -> None:
    fault = fault_of(said)
    assert fault is not None
    assert fault.status == status
    assert fault.words.startswith(words)


@pytest.mark.parametrize(
    "said",
    [
        {"type": "ping"},
        {"choices": []},
        {"error": None},
        {"error": {}},
        {"error": ""},
        {"id": "x", "object": "chat.completion.chunk"},
        {"message": "hello"},
        {"status": "ok", "message": "queued"},
        {"code": 0, "message": "success"},
        {"usage": {"prompt_tokens": 3}, "code": 1, "message": "x"},
        None,
        5,
        "text",
        [],
    ],
    ids=lambda v: str(v)[:40],
)
def test_what_is_no_error_is_none(said: Any) -> None:
    assert fault_of(said) is None


FRAMES = {
    "an event": "data: {}\n\n",
    "an event named error": "event: error\ndata: {}\n\n",
    "a field named error": "error: {}\n\n",
    "a line without data": ": hi\n\n{}\n",
    "the whole body": "{}",
    "after a role": 'data: {"choices": [{"delta": {"role": "assistant"}}]}\n\ndata: {}\n\n',
}


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize(
    "said",
    [
        {"error": {"message": "try later", "code": 429}},
        {"object": "error", "message": "try later", "code": 42901},
        {"detail": "try later: rate limit"},
        {"error": "try later: too many requests"},
    ],
    ids=["openai", "fastchat", "fastapi", "text"],
)
async def test_a_rate_limit_under_status_200_is_one_in_every_frame(
    connect: Connect, frame: str, said: Any
) -> None:
    reply = whole(f"{json.dumps(said)}".join(FRAMES[frame].rsplit("{}", 1)))
    engine, server = await connect(reply)
    with pytest.raises(Overloaded, match="try later"):
        await answer(engine)
    assert len(server.requests) == 3
    engine, server = await connect(reply, whole(HELLO))
    assert text(await answer(engine)) == "Hello"


async def test_an_error_without_json_keeps_its_words(connect: Connect) -> None:
    engine, _ = await connect(whole("event: error\ndata: engine died\n\n"), retries=0)
    with pytest.raises(EngineError, match=r"/v1: engine died$"):
        await answer(engine)


PAGES = [
    (b"<html><head><title>503 Service\n Unavailable</title></head>x", 503, "503 Service Unavailable"),
    (b"\xef\xbb\xbf <!DOCTYPE html><body><h1>Oops &amp; sorry</h1></body>", 502, "Oops & sorry"),
    (b"<html><head><style>a{}</style><script>1<2</script></head><p>Down</p>", 502, "Down"),
    (b"upstream connect error", 502, "upstream connect error"),
    (b"429 Too Many Requests\n", 429, "429 Too Many Requests"),
]


@pytest.mark.parametrize(("page", "status", "words"), PAGES, ids=range(len(PAGES)))
def test_a_page_in_place_of_an_answer_is_one_line(page: bytes, status: int, words: str) -> None:
    fault = fault_of_page(page)
    assert fault is not None
    assert (fault.status, fault.words) == (status, words)


@pytest.mark.parametrize("page", [b"", b"  \n", b": ping\n\n: ping\n\n", b"event: x\nid: 1\n\n"])
def test_a_page_without_words_is_no_fault(page: bytes) -> None:
    assert fault_of_page(page) is None


async def test_a_page_under_status_200_is_tried_again_and_then_told(connect: Connect) -> None:
    page = whole("<html><title>Back soon</title></html>", "text/html")
    engine, _ = await connect(page, whole(HELLO))
    assert text(await answer(engine)) == "Hello"
    engine, server = await connect(page)
    with pytest.raises(EngineError, match=r"/v1: Back soon$"):
        await answer(engine)
    assert len(server.requests) == 3


KINDS: list[tuple[int, Any, type[RequestError]]] = [
    (429, {"error": "x"}, Overloaded),
    (413, {"error": {"message": "Request too large", "code": "rate_limit_exceeded"}}, Overloaded),
    (400, {"error": {"message": "x", "code": "content_filter"}}, ContentFiltered),
    (400, {"error": {"innererror": {"code": "ResponsibleAIPolicyViolation"}}}, ContentFiltered),
    (400, {"code": "data_inspection_failed", "message": "inappropriate"}, ContentFiltered),
    (400, {"error": {"message": "x", "code": "context_length_exceeded"}}, ContextTooLong),
    (500, {"error": {"message": "the request exceeds the available context size"}}, ContextTooLong),
    (400, {"message": "prompt is too long: 210000 tokens > 200000 maximum"}, ContextTooLong),
    (422, {"error": "`inputs` tokens + `max_new_tokens` must be <= 4096"}, ContextTooLong),
    (400, {"message": "Input is too long for requested model."}, ContextTooLong),
    (400, {"error": {"message": "The input token count (9) exceeds the maximum"}}, ContextTooLong),
    (400, {"error": "Please reduce the length of the messages or completion."}, ContextTooLong),
    (400, {"error": "This model's maximum prompt length is 131072"}, ContextTooLong),
    (400, {"error": "loaded with context length of only 9, context overflows"}, ContextTooLong),
    (400, {"error": "bad seed"}, BadRequest),
    (422, {"detail": "bad seed"}, BadRequest),
    (401, {"error": "context window"}, EngineError),
    (503, {"error": "busy"}, EngineError),
]


@pytest.mark.parametrize(("status", "body", "kind"), KINDS, ids=range(len(KINDS)))
def test_the_class_of_an_error_follows_status_and_words(
    status: int, body: Any, kind: type[RequestError]
) -> None:
    assert fault_of_response(status, {}, json.dumps(body).encode(), "").kind is kind


@pytest.mark.parametrize(
    ("status", "is_retried"),
    [(s, True) for s in (408, 409, 425, 429, 500, 501, 502, 503, 504, 520, 529)]
    + [(s, False) for s in (301, 400, 401, 402, 403, 404, 405, 410, 413, 422)],
)
async def test_a_call_is_tried_again_where_that_may_help(
    connect: Connect, status: int, is_retried: bool
) -> None:
    engine, server = await connect(refusal(status), whole(HELLO), retries=1)
    if is_retried:
        assert text(await answer(engine)) == "Hello"
    else:
        with pytest.raises(RequestError, match=f"answered {status}"):
            await answer(engine)
    assert len(server.requests) == 1 + is_retried


async def test_a_template_that_refuses_is_the_conversations_fault_whatever_the_status(
    connect: Connect,
) -> None:
    said = (
        "\n---\nWhile executing CallExpression in source:\n{{ raise('x') }}\nError: Jinja Exception: no"
    )
    engine, server = await connect(refusal(500, {"message": said, "code": 500}))
    with pytest.raises(TemplateRefused, match=r"does not take this conversation: no$"):
        await answer(engine)
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b'{"error": ' + b"[" * 50_000, b"\xff\xfe<html>", b"\x00" * 99])
def test_any_bytes_have_words_and_cause_no_error(body: bytes) -> None:
    assert isinstance(words_of_body(body), str)


async def test_a_huge_error_is_not_read_to_its_end(connect: Connect) -> None:
    engine, _ = await connect(whole(b"x" * 9_000_000, "text/plain", 400))
    with pytest.raises(BadRequest) as failure:
        await answer(engine)
    assert len(failure.value.message) < 700


async def test_done_alone_is_an_empty_answer(connect: Connect) -> None:
    engine, _ = await connect(whole(DONE))
    assert text(await answer(engine)) == ""
