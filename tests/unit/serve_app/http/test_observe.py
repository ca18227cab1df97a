"""Observers learn what becomes of each request: of its events and its end, or why it was refused."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from configs.errors import EngineError
from serve_app.access.api_keys import Key
from serve_app.http.api import create_api
from serve_app.mixture.events import (
    AnswerDelta,
    AnswerDone,
    Event,
    ProposalDelta,
    ProposalThinks,
    Started,
)
from serve_app.observe import Asked, Ended, Refused, Watcher, watched
from tests.unit.serve_app.conftest import CHAT, MIXTURE, Exchange, Puppets, Scripted, recipe


@dataclass
class Notes:
    """Notes down all that an observer is told. It watches one request at a time."""

    asked: list[Asked] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)

    def begin(self, asked: Asked) -> Watcher:
        self.asked.append(asked)
        return self

    def event(self, event: Event) -> None:
        self.events.append(event)

    def end(self, ended: Ended) -> None:
        self.ended.append(ended)

    def refuse(self, refused: Refused) -> None:
        self.refused.append(refused)


async def asked_over_http(
    notes: Notes, method: str, path: str, json: Any = None, **headers: str
) -> httpx.Response:
    models = Scripted(recipe())
    await models.start()
    transport = httpx.ASGITransport(create_api(recipe(), models, observers=[notes]))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.request(method, path, json=json, headers=headers)


async def test_an_answer_is_told_by_its_events_without_any_delta() -> None:
    for stream in (False, True):
        notes = Notes()
        headers = {"x-request-id": "req-7", "traceparent": "00-1-2-01"}
        body = MIXTURE | {"stream": stream, "moa": {"events": True}}
        answer = await asked_over_http(notes, "POST", CHAT, body, **headers)
        assert answer.status_code == 200
        assert notes.asked == [Asked("req-7", "anyone", "mix", True, stream, "00-1-2-01")]
        kinds = [type(event) for event in notes.events]
        assert kinds[0] is Started
        assert kinds[-1] is AnswerDone
        assert not {AnswerDelta, ProposalDelta} & set(kinds)
        (ended,) = notes.ended
        assert ended.summary is not None
        assert ended.summary.answered.model == "writer"
        assert ended.error is None
        assert not ended.has_left
        assert ended.seconds >= 0
        assert not notes.refused


async def test_a_thought_is_told_once_and_without_its_text() -> None:
    notes, puppets = Notes(), Puppets()
    body = MIXTURE | {"stream": True, "moa": {"events": True}}
    answer = Exchange(create_api(recipe(), puppets, observers=[notes]), body)
    await answer.start()
    one = await puppets.call("one")
    for thought in ("a secret", " thought"):
        one.think(thought)
    one.say("aloud")
    one.end()
    for model in ("two", "writer"):
        await puppets.answer(model)
    await answer.rest()
    thoughts = [event for event in notes.events if isinstance(event, ProposalThinks)]
    assert thoughts == [ProposalThinks(layer=1, place=0, model="one")]
    assert "secret" not in str(notes.events)


async def test_refused_requests_are_told_once_and_never_begin() -> None:
    for method, path, body, status, code in [
        ("POST", CHAT, MIXTURE | {"model": "none"}, 404, "model_not_found"),
        ("POST", CHAT, MIXTURE | {"temperature": 9}, 400, "invalid_request"),
        ("POST", "/v1/embeddings", {}, 404, "invalid_request"),
        ("DELETE", CHAT, None, 405, "invalid_request"),
    ]:
        notes = Notes()
        answer = await asked_over_http(notes, method, path, body, **{"x-request-id": "r"})
        assert answer.status_code == status
        (refused,) = notes.refused
        said = (refused.request_id, refused.key, refused.method, refused.path, refused.status)
        assert said == ("r", "anyone", method, path, status)
        assert refused.error.code == code
        assert refused.error.message == answer.json()["error"]["message"]
        assert not notes.asked
        assert not notes.ended


async def test_a_request_without_a_key_is_told_without_a_name() -> None:
    notes = Notes()
    api = create_api(recipe(), Puppets(), [Key("env", b"\0" * 32)], observers=[notes])
    answer = Exchange(api, MIXTURE)
    assert (await answer.start())["status"] == 401
    assert [(r.key, r.status, r.error.code) for r in notes.refused] == [(None, 401, "invalid_api_key")]


async def test_an_answer_that_fails_ends_with_its_error_and_is_no_refusal() -> None:
    notes, puppets = Notes(), Puppets()
    answer = Exchange(create_api(recipe(), puppets, observers=[notes]), MIXTURE)
    for model in ("one", "two"):
        (await puppets.call(model)).fail(EngineError("it broke", model=model))
    assert (await answer.start())["status"] == 503
    (ended,) = notes.ended
    assert ended.error is not None
    assert ended.error.code == "quorum_not_met"
    assert ended.summary is None
    assert not ended.has_left
    assert not notes.refused


async def test_a_client_that_leaves_ends_the_request_without_an_error() -> None:
    notes, puppets = Notes(), Puppets()
    answer = Exchange(create_api(recipe(), puppets, observers=[notes]), MIXTURE)
    call = await puppets.call("one")
    assert not notes.ended
    answer.leave()
    await answer.app
    await call.closed.wait()
    assert [ended.has_left for ended in notes.ended] == [True]


async def test_a_defect_ends_the_request_without_the_words_of_the_defect() -> None:
    async def broken() -> AsyncGenerator[Event]:
        yield Started(1)
        raise ZeroDivisionError("a prompt")

    notes = Notes()
    asked = Asked("r", "anyone", "mix", is_mixture=True, is_stream=False, traceparent=None)
    seconds = iter((5.0, 7.5))
    with pytest.raises(ZeroDivisionError):
        async for _ in watched(lambda _: broken(), lambda: notes.begin(asked), lambda: next(seconds)):
            pass
    (ended,) = notes.ended
    assert ended.seconds == 2.5
    assert ended.error is not None
    assert ended.error.message == "internal error (ZeroDivisionError)"


async def test_a_defect_of_an_observer_costs_no_request_anything(
    caplog: pytest.LogCaptureFixture,
) -> None:
    secret = "the text of a prompt".upper()

    class Broken(Notes):
        def begin(self, asked: Asked) -> Watcher:
            if asked.is_stream:
                raise ZeroDivisionError(secret)
            return self

        def event(self, event: Event) -> None:
            raise ZeroDivisionError(secret, event)

        def end(self, ended: Ended) -> None:
            raise ZeroDivisionError(secret, ended)

        def refuse(self, refused: Refused) -> None:
            raise ZeroDivisionError(secret, refused)

    good = Notes()
    models = Scripted(recipe())
    await models.start()
    transport = httpx.ASGITransport(create_api(recipe(), models, observers=[Broken(), good]))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for body in (MIXTURE, MIXTURE | {"stream": True}):
            assert (await client.post(CHAT, json=body)).status_code == 200
        assert (await client.post(CHAT, json=MIXTURE | {"model": "none"})).status_code == 404
    assert [ended.error for ended in good.ended] == [None, None]
    assert len(good.refused) == 1
    told = [r.getMessage() for r in caplog.records if "has a defect" in r.getMessage()]
    assert told
    assert not any(
        word in line for line in told for word in ("a key", "a prompt", "an answer", "a path")
    )
