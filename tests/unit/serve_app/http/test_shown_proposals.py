"""The proposals of a stream as its reasoning: what a person reads, and when."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine import Delta, Message
from configs.errors import EngineError
from configs.schema import Recipe, Sampling
from serve_app.http.api import create_api
from serve_app.http.request import parse
from serve_app.http.response import ChatResponse
from serve_app.http.shown_proposals import RULE, ShownProposals, open_block_end
from serve_app.mixture.events import (
    AnswerDelta,
    Call,
    Event,
    Missing,
    ProposalDelta,
    ProposalDone,
    ProposalDropped,
    StageStarted,
)
from tests.unit.serve_app.conftest import CHAT, HELLO, MIXTURE, Exchange, Puppets, Scripted, recipe

Ask = Callable[..., Exchange]
CALL = Call("m", "proposer", 1, 1, 0.1)
LATE = Missing(1, "two", "late", "was not done when the layer's time was up")


class Shown(ShownProposals):
    """Proposals of two or three models."""

    def __init__(self, *models: str, layers: int = 1) -> None:
        super().__init__(layers)
        self.text = ""
        self.see(StageStarted("layer 1", models or ("one", "two"), (), 0.0))

    def see(self, *events: Event) -> str:
        pieces = "".join(map(self.take, events))
        self.text += pieces
        return pieces

    def says(self, place: int, text: str) -> str:
        return self.see(ProposalDelta(1, place, "m", text))

    def ends(self, place: int, text: str) -> str:
        return self.see(ProposalDone(1, place, "m", text, 1.0, CALL))

    def drops(self, place: int, missing: Missing = LATE) -> str:
        return self.see(ProposalDropped(place, missing))


def test_the_first_with_text_grows_and_the_others_follow_whole() -> None:
    shown = Shown("one", "two", "three")
    assert shown.says(1, "\n") == ""
    assert shown.says(0, "A ") == "**one (proposal 1 of 3)**\n\nA "
    assert shown.says(1, "B ") == ""
    assert shown.says(0, "a") == "a"
    assert shown.ends(1, "B b") == ""
    assert shown.says(2, "C ") == ""
    assert shown.ends(0, "A a") == (
        "\n\n---\n\n**two (proposal 2 of 3)**\n\nB b\n\n---\n\n**three (proposal 3 of 3)**\n\nC "
    )
    assert shown.says(2, "c") == "c"
    assert shown.ends(2, "C c") == ""


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("plain", ""),
        ("```python\nx = 1", "\n```"),
        ("```python\nx = 1\n```", ""),
        ("```\na\n```\nb\n````md\n```\nc", "\n````"),
        ("~~~ `info`\n```\nc", "\n~~~"),
        ("```\na\n``` not the end", "\n```"),
        ("``` not `a` block", ""),
        ("a\n\n    ```\nindented", ""),
        ("- a\n  ```\n  x", "\n```"),
    ],
)
def test_a_block_of_code_is_closed_behind_the_proposal(text: str, end: str) -> None:
    assert open_block_end(text) == end
    shown = Shown()
    shown.says(0, text)
    shown.ends(1, "other")
    assert shown.ends(0, text) == f"{end}\n\n---\n\n**two (proposal 2 of 2)**\n\nother"


async def test_proposals_come_in_the_pieces_of_answers_that_nobody_watches() -> None:
    mixture = recipe().model_copy(update={"show_proposals": True})
    models = Streamed(mixture)
    await models.start()
    transport = httpx.ASGITransport(create_api(mixture, models))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        await http.post(CHAT, json=MIXTURE | {"stream": True})
        assert models.streamed == {"one": False, "two": False, "writer": True}
        await http.post(CHAT, json=MIXTURE | {"stream": True, "moa": {"events": True}})
        assert models.streamed == {"one": True, "two": True, "writer": True}
    await models.stop()


class Streamed(Scripted):
    """Notes whether each model was last asked to write as its answer is read."""

    def __init__(self, mixture: Recipe) -> None:
        super().__init__(mixture)
        self.streamed: dict[str, bool] = {}

    def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncIterator[Delta]:
        self.streamed[model] = streamed
        return super().stream(model, messages, sampling)


async def test_a_sign_of_life_does_not_end_the_fold() -> None:
    request = parse(json.dumps(MIXTURE | {"stream": True}).encode())
    response = ChatResponse(request, ShownProposals(1))
    fields = []
    started = StageStarted("layer 1", ("one",), (), 0.0)
    grows = ProposalDelta(1, 0, "one", "a")
    for event in (started, grows, AnswerDelta(Delta(text="x")), AnswerDelta(Delta(reasoning="hm"))):
        response.chunks([event])
        comment, data, *_ = response.chunks([]).split("\n")
        assert comment == ": keep-alive"
        (choice,) = json.loads(data.removeprefix("data: "))["choices"]
        fields.append(choice["delta"])
    assert fields == [
        {"content": ""},
        {"reasoning_content": ""},
        {"content": ""},
        {"reasoning_content": ""},
    ]


def test_what_is_left_out_is_named_where_its_turn_comes() -> None:
    shown = Shown("one", "two", "three")
    shown.says(1, "half")
    shown.drops(0, Missing(1, "one", "engine_error", "it broke"))
    assert shown.drops(1) == (
        "\n\n*dropped: late: was not done when the layer's time was up*"
        "\n\n---\n\n**one (proposal 1 of 3)**\n\n*dropped: engine_error: it broke*"
    )
    assert shown.ends(2, "c") == "\n\n---\n\n**three (proposal 3 of 3)**\n\nc"
    again = Missing(1, "three", "quorum_not_met", "1 of 2 proposals came")
    assert shown.drops(2, again) == "\n\n*dropped: quorum_not_met: 1 of 2 proposals came*"


def test_a_proposal_that_is_not_needed_is_named_only_if_some_of_it_was_shown() -> None:
    spare = Missing(1, "two", "not_needed", "the answer was there before")
    shown = Shown("one", "two", "three")
    shown.ends(0, "A")
    shown.says(1, "B ")
    assert shown.drops(2, spare) == ""
    assert shown.drops(1, spare).strip() == "*not needed: the answer was there before*"
    assert "three" not in shown.text


@pytest.mark.parametrize(
    ("streamed", "whole", "text"),
    [
        (["\n A", "b "], "Ab", "Ab "),
        (["<think>hm</think>", "A"], "A", "<think>hm</think>A"),
        (["A", "b"], "Abc", "Abc"),
        (["A", "b"], "other", "Ab\n\nother"),
        ([], "whole", "whole"),
    ],
)
def test_the_whole_text_is_shown_once(streamed: list[str], whole: str, text: str) -> None:
    shown = Shown("one")
    for piece in streamed:
        shown.says(0, piece)
    shown.ends(0, whole)
    assert shown.text == f"**one (proposal 1 of 1)**\n\n{text}"


def test_layers_and_the_writers_own_thoughts_are_told_apart() -> None:
    shown = Shown("one", layers=2)
    shown.ends(0, "a")
    shown.see(StageStarted("layer 2", ("two",), (), 1.0))
    assert shown.ends(0, "b") == "\n\n---\n\n**two (layer 2, proposal 1 of 1)**\n\nb"
    shown.see(StageStarted("aggregator", ("writer", "other"), (), 2.0))
    assert shown.see(AnswerDelta(Delta(reasoning="hm"))) == "\n\n---\n\n**writer thinks**\n\n"
    assert shown.see(AnswerDelta(Delta(reasoning="hm")), AnswerDelta(Delta(text="x"))) == ""


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["grow", "end", "drop"])), max_size=60))
def test_every_proposal_is_shown_once_and_whole_in_any_order(steps: list[tuple[int, str]]) -> None:
    names = ("one", "two", "three")
    shown = Shown(*names)
    texts = ["", "", ""]
    ended: set[int] = set()
    for number, (place, step) in enumerate([*steps, (0, "end"), (1, "end"), (2, "end")]):
        if place in ended:
            continue
        if step == "grow":
            texts[place] += f"<{number}>"
            shown.says(place, f"<{number}>")
            continue
        ended.add(place)
        if step == "end":
            texts[place] = texts[place] or f"<only {place}>"
            shown.ends(place, texts[place])
        else:
            shown.drops(place)
    for name, text in zip(names, texts, strict=True):
        assert shown.text.count(f"**{name} (") == 1
        assert not text or shown.text.count(text) == 1


async def chunks(exchange: Exchange) -> list[dict[str, Any]]:
    *events, done = await exchange.rest()
    assert done == "[DONE]"
    return [event["choices"][0]["delta"] for event in events if event["choices"]]


async def test_a_stream_has_the_proposals_as_reasoning_before_the_answer(
    puppets: Puppets, ask: Ask
) -> None:
    exchange = ask(stream=True, moa={"proposals": True})
    await exchange.start()
    await exchange.events()
    one = await puppets.call("one")
    one.say("it grows")
    (piece,) = await exchange.events()
    assert piece["choices"][0]["delta"] == {
        "reasoning_content": "**one (proposal 1 of 2)**\n\nit grows"
    }
    one.end()
    (await puppets.call("two")).fail(EngineError("it broke", model="two"))
    await puppets.answer("writer")
    found = await chunks(exchange)
    assert found[0] == {
        "reasoning_content": f"{RULE}**two (proposal 2 of 2)**\n\n*dropped: engine_error: it broke*"
    }
    assert all("reasoning_content" not in delta for delta in found[1:])
    assert "".join(delta.get("content", "") for delta in found)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "reasoning_content"),
        ({"include_reasoning": True}, "reasoning"),
        ({"reasoning": {"enabled": True}}, "reasoning"),
        ({"moa": {"reasoning": "reasoning"}}, "reasoning"),
        ({"moa": {"proposals": False}}, None),
        ({"moa": {"reasoning": False}}, None),
        ({"moa": {"events": True}}, None),
        ({"include_reasoning": False}, None),
        ({"reasoning": {"exclude": True}}, None),
        ({"model": "one"}, None),
    ],
    ids=str,
)
@pytest.mark.parametrize("by_recipe", [True, False])
async def test_recipe_and_request_say_whether_and_where(
    fields: dict[str, Any], name: str | None, by_recipe: bool
) -> None:
    mixture = recipe().model_copy(update={"show_proposals": by_recipe})
    models = Scripted(mixture)
    await models.start()
    transport = httpx.ASGITransport(create_api(mixture, models))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        body = MIXTURE | {"messages": HELLO, "stream": True} | fields
        lines = (await http.post(CHAT, json=body)).text.splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    deltas = [event["choices"][0]["delta"] for event in events if event["choices"]]
    reasons = {key for delta in deltas for key in delta if key.startswith("reasoning")}
    assert reasons == ({name} if name and by_recipe else set())
    assert "".join(delta.get("content") or "" for delta in deltas)
    await models.stop()
