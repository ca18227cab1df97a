"""Every key and value that clients receive, to the letter, streamed and whole.

A change of the API's JSON shows as a change of the files in `golden/`. The events of the first two
tests are made by hand, so that every type of event and every field of the summary occurs in them; those
of the last two come from the mixture over scripted models.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.engine import Delta
from configs.errors import EngineError
from serve_app.http.answer_schema import ChatCompletion, ChatCompletionChunk
from serve_app.http.api import create_api
from serve_app.http.request import parse
from serve_app.http.response import ChatResponse
from serve_app.http.sse import in_one_line
from serve_app.mixture.events import (
    AnswerDelta,
    AnswerDone,
    Answered,
    Call,
    Decided,
    Event,
    Judged,
    Missing,
    ProposalDelta,
    ProposalDone,
    ProposalDropped,
    Reference,
    Retried,
    Spent,
    StageDone,
    StageStarted,
    Started,
    Summary,
    Trimmed,
)
from tests.unit.serve_app.conftest import CHAT, MIXTURE, Scripted, recipe

GOLDEN = Path(__file__).parent / "golden"
LOGPROB = {"token": "Yes", "logprob": -0.25, "bytes": [89, 101, 115], "top_logprobs": []}
PROPOSER = Call("one", "proposer", 12, 3, 0.123456, seed=4)
AGAIN = Call("one", "proposer", 12, 4, 0.2, seed=5)
EMPTY = Call("two", "proposer", 12, 1, 0.5, "length")
AGGREGATOR = Call("writer", "aggregator", 40, 2, 1.00004, "length")
JUDGE = Call("writer", "aggregator", 30, 1, 0.25, "length")
DECIDED = Decided("select", "the best has 0.70 and the next 0.20", Reference(1, 1))
LATE = Missing(layer=1, model="two", cause="late", detail="no answer in 2 s")
FAILED = Missing(layer=0, model="first", cause="engine_error", detail='it "broke" – badly')
TRIMMED = Trimmed(layer=0, model="writer", tokens_removed=77)
RETRIED = Retried(layer=1, model="one", detail="its replica died")
READ = (Reference(1, 1), Reference(1, 0))
LAYER = StageDone("layer 1", 1.234567)
LAST = StageDone("aggregator", 2.0, 0.987654, 1.234567, READ)
EVENTS: list[Event] = [
    Started(seed=7),
    StageStarted("layer 1", ("one", "one", "two"), (), 0.0),
    ProposalDelta(layer=1, place=0, model="one", text="Grüße 👋\n"),
    Retried(layer=1, model="one", detail="its replica died"),
    ProposalDone(layer=1, place=0, model="one", text="Grüße 👋", seconds=0.6543219, call=PROPOSER),
    ProposalDone(1, 1, "one", "again", seconds=1.0, call=AGAIN, first_s=0.45678, confidence=-0.25004),
    Spent(EMPTY),
    ProposalDropped(place=2, missing=LATE, seconds=1.23456),
    LAYER,
    StageStarted("aggregator", ("first", "writer"), READ, 1.234567),
    FAILED,
    TRIMMED,
    Judged(JUDGE),
    DECIDED,
    AnswerDelta(Delta()),
    AnswerDelta(Delta(reasoning="Hm.")),
    AnswerDelta(Delta(text="Yes", logprobs=(LOGPROB,))),
    AnswerDelta(Delta(text=" and no.")),
    Answered("writer", "length", "aggregator", cut=True, first_s=0.987654, call=AGGREGATOR),
    LAST,
    AnswerDone(
        Summary(
            seed=7,
            answered=Answered(
                "writer",
                "length",
                "aggregator",
                cut=True,
                tokens=2,
                unheld=("structure",),
                method=DECIDED.method,
                why=DECIDED.why,
                chosen=DECIDED.chosen,
            ),
            missing=(LATE, FAILED),
            trimmed=(TRIMMED,),
            retried=(RETRIED,),
            stages=(LAYER, LAST),
            calls=(PROPOSER, AGAIN, EMPTY, JUDGE, AGGREGATOR),
            conversation_tokens=12,
            order="arrival",
        )
    ),
]
ALL: dict[str, Any] = {
    "moa": {"events": True},
    "tools": [{"name": "f"}],
    "tool_choice": "none",
    "seed": 7,
}
STREAMED: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}

some = settings(max_examples=60, deadline=None)

Same = Callable[[str, str], None]


@pytest.fixture
def same() -> Same:
    """Compares a text with a file in `golden/`; ids and times of the real clock stand there as 0."""

    def compare(name: str, text: str) -> None:
        text = re.sub(r'"id":"chatcmpl-[0-9a-f]{32}"', '"id":"chatcmpl-0"', text)
        text = re.sub(r'"created":\d{10}', '"created":0', text)
        assert text == (GOLDEN / name).read_text("utf-8")

    return compare


def response(**fields: Any) -> ChatResponse:
    return ChatResponse(parse(json.dumps(MIXTURE | fields).encode()))


@pytest.mark.parametrize("name", ["all", "plain"])
def test_every_event_of_a_stream(same: Same, name: str) -> None:
    reply = response(
        **(ALL if name == "all" else {}), **(STREAMED if name == "all" else {"stream": True})
    )
    failed = reply.error(EngineError("it broke", model="one", param="messages"))
    text = reply.role() + reply.chunks([]) + reply.chunks(EVENTS) + failed
    same(f"stream_{name}.txt", text)


@pytest.mark.parametrize("name", ["all", "plain"])
def test_every_field_of_a_whole_answer(same: Same, name: str) -> None:
    done = EVENTS[-1]
    assert isinstance(done, AnswerDone)
    reply = response(**(ALL if name == "all" else {}))
    same(f"whole_{name}.json", reply.whole(EVENTS, done.summary))


@pytest.mark.virtual_time
@pytest.mark.parametrize("model", ["mix", "one"])
@pytest.mark.parametrize(
    ("form", "fields"),
    [("stream.txt", ALL | STREAMED), ("whole.json", ALL)],
    ids=["streamed", "whole"],
)
async def test_a_scripted_conversation(
    same: Same, model: str, form: str, fields: dict[str, Any]
) -> None:
    mixture = recipe()
    models = Scripted(mixture)
    await models.start()
    transport = httpx.ASGITransport(create_api(mixture, models))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.post(CHAT, json=MIXTURE | fields | {"model": model})
    same(f"scripted_{model}_{form}", re.sub(r'"engine_s":[\d.]+', '"engine_s":0.0', answer.text))


@pytest.mark.parametrize("path", sorted(GOLDEN.iterdir()), ids=lambda path: path.name)
def test_the_schema_knows_every_key_and_value(path: Path) -> None:
    if path.suffix == ".json":
        whole = path.read_text("utf-8")
        assert ChatCompletion.model_validate_json(whole).model_dump_json(exclude_unset=True) == whole
        return
    data = [line.removeprefix("data: ") for line in path.read_text("utf-8").splitlines()]
    chunks = [text for text in data if text.startswith('{"id"')]
    for text in chunks:
        assert ChatCompletionChunk.model_validate_json(text).model_dump_json(exclude_unset=True) == text
    assert chunks


@some
@given(st.text(min_size=1))
def test_a_chunk_of_text_alone_is_the_one_that_the_schema_makes(text: str) -> None:
    data = (
        response(stream=True)
        .chunks([AnswerDelta(Delta(text=text))])
        .removeprefix("data: ")
        .rstrip("\n")
    )
    chunk = ChatCompletionChunk.model_validate_json(data)
    assert chunk.choices[0].delta.content == text
    assert in_one_line(chunk.model_dump_json(exclude_unset=True)) == data
