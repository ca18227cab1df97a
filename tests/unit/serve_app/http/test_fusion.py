"""`moa.fuse` over HTTP: the aggregator alone over proposals that the client gives."""

import hashlib
import json
from typing import Any

import httpx
import pytest

from configs.access import Allowance
from configs.schema import Recipe
from serve_app.access.admission import AdmissionControl
from serve_app.access.api_keys import Key, generate_key
from serve_app.http.api import create_api
from serve_app.http.fusion import MOST_PROPOSALS
from tests.unit.serve_app.conftest import CHAT, HELLO, Exchange, Puppets, Scripted, recipe

GIVEN = [{"model": "one", "text": "first given"}, {"model": "whoever", "text": "second given"}]


def body(fuse: Any, **fields: Any) -> dict[str, Any]:
    moa = {"fuse": fuse, **fields.pop("moa", {})}
    return {"model": "mix", "messages": HELLO, "moa": moa, **fields}


def placed(place: Any) -> dict[str, Any]:
    """A proposal with a place."""
    return {"model": "a", "text": "t", "place": place}


def asked(scripted: Scripted) -> list[str]:
    return [model for model, _, _ in scripted.asked]


async def test_an_answer_in_one_piece_takes_one_call(
    http: httpx.AsyncClient, scripted: Scripted
) -> None:
    got = (await http.post(CHAT, json=body({"proposals": GIVEN}, seed=4, moa={"events": True}))).json()
    assert asked(scripted) == ["writer"]
    prompt = "\n".join(message["content"] for message in scripted.asked[0][1])
    assert ("first given" in prompt, "second given" in prompt, "whoever" in prompt) == (
        True,
        True,
        False,
    )
    moa = got["moa"]
    assert (moa["answered_by"], moa["degraded"], moa["seed"]) == ("writer", False, 4)
    assert [stage["stage"] for stage in moa["stages"]] == ["aggregator"]
    order = [reference["place"] for reference in moa["stages"][0]["references"]]
    assert sorted(order) == [0, 1]
    texts = [GIVEN[place]["text"] for place in order]
    assert prompt.index(texts[0]) < prompt.index(texts[1])
    assert moa["proposals"] == []
    assert [(row["model"], row["role"], row["calls"]) for row in got["usage"]["by_model"]] == [
        ("writer", "aggregator", 1)
    ]


@pytest.mark.parametrize("seed", range(4))
async def test_a_proposal_has_the_place_that_the_request_gives(
    http: httpx.AsyncClient, seed: int
) -> None:
    three = [{**GIVEN[n % 2], "text": f"<text {n}>", "place": n} for n in range(3)]
    places = []
    for proposals in (three, three[:1] + three[2:], three[1:]):
        got = (await http.post(CHAT, json=body({"proposals": proposals}, seed=seed))).json()
        places.append([each["place"] for each in got["moa"]["stages"][0]["references"]])
        assert got["moa"]["order"] == "seeded"
    whole, *parts = places
    assert sorted(whole) == [0, 1, 2]
    assert parts == [[n for n in whole if n != 1], [n for n in whole if n != 0]]


async def test_a_stream_tells_of_one_stage_and_shows_no_proposals(
    http: httpx.AsyncClient, scripted: Scripted
) -> None:
    for events, kinds in ((True, ["stage.started", "stage.done", "summary"]), (False, ["summary"])):
        moa = {"events": events, "proposals": True}
        got = await http.post(CHAT, json=body({"proposals": GIVEN}, stream=True, moa=moa))
        chunks = [json.loads(line[6:]) for line in got.text.splitlines() if line.startswith("data: {")]
        assert [chunk["moa"]["type"] for chunk in chunks if "moa" in chunk] == kinds
        deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
        assert not any("reasoning_content" in delta for delta in deltas)
        assert len("".join(delta.get("content", "") for delta in deltas).split()) == 6
    assert asked(scripted) == ["writer", "writer"]


@pytest.mark.parametrize("name", ["one", "two", "writer", None])
async def test_any_model_of_the_recipe_may_aggregate(
    http: httpx.AsyncClient, scripted: Scripted, name: str | None
) -> None:
    fuse = {"proposals": GIVEN, "aggregator": name}
    got = (await http.post(CHAT, json=body(fuse, temperature=0.125))).json()
    assert asked(scripted) == [name or "writer"]
    assert got["moa"]["answered_by"] == (name or "writer")
    assert (got["moa"]["fallback"], got["model"]) == (None, "mix")
    assert scripted.asked[0][2].temperature == 0.125


async def test_the_responses_api_takes_the_same_field(
    http: httpx.AsyncClient, scripted: Scripted
) -> None:
    request = {"model": "mix", "input": "hello", "moa": {"fuse": {"proposals": GIVEN}}}
    got = await http.post("/v1/responses", json=request)
    assert (got.status_code, got.json()["status"]) == (200, "completed")
    assert asked(scripted) == ["writer"]
    assert [item["type"] for item in got.json()["output"]] == ["message"]


@pytest.mark.parametrize(
    ("fuse", "param", "says"),
    [
        ({}, "moa.fuse.proposals", "Field required"),
        ({"proposals": []}, "moa.fuse.proposals", "at least 1 item"),
        ({"proposals": "text"}, "moa.fuse.proposals", "valid array"),
        ([], "moa.fuse", "object"),
        (GIVEN, "moa.fuse", "object"),
        ({"proposals": GIVEN, "seed": 1}, "moa.fuse.seed", "not permitted"),
        ({"proposals": [{"text": "t"}]}, "moa.fuse.proposals.0.model", "Field required"),
        ({"proposals": [{"model": "a"}]}, "moa.fuse.proposals.0.text", "Field required"),
        (
            {"proposals": [*GIVEN, {"model": "a", "text": ""}]},
            "moa.fuse.proposals.2.text",
            "needs text",
        ),
        ({"proposals": [{"model": "a", "text": " \n"}]}, "moa.fuse.proposals.0.text", "needs text"),
        (
            {"proposals": [{"model": "a", "text": "\u200b\u2060"}]},
            "moa.fuse.proposals.0.text",
            "needs text",
        ),
        ({"proposals": [{"model": 5, "text": "t"}]}, "moa.fuse.proposals.0.model", "valid string"),
        ({"proposals": [{"model": "a", "text": ["t"]}]}, "moa.fuse.proposals.0.text", "valid string"),
        ({"proposals": GIVEN, "aggregator": ""}, "moa.fuse.aggregator", "at least 1 character"),
        ({"proposals": GIVEN, "aggregator": 1}, "moa.fuse.aggregator", "valid string"),
        (
            {"proposals": GIVEN, "aggregator": "nobody"},
            "moa.fuse.aggregator",
            "no model 'nobody' here; there are writer, one, two",
        ),
        ({"proposals": GIVEN, "aggregator": "mix"}, "moa.fuse.aggregator", "no model 'mix' here"),
        (
            {"proposals": GIVEN * MOST_PROPOSALS},
            "moa.fuse.proposals",
            f"at most {MOST_PROPOSALS} items",
        ),
        ({"proposals": [placed(0), GIVEN[1]]}, "moa.fuse.proposals", "each proposal a place, or none"),
        ({"proposals": [placed(3), placed(1), placed(3)]}, "moa.fuse.proposals", "the place 3"),
        ({"proposals": [placed(-1)]}, "moa.fuse.proposals.0.place", "greater than or equal to 0"),
        ({"proposals": [placed(256)]}, "moa.fuse.proposals.0.place", "less than 256"),
        ({"proposals": [placed("1")]}, "moa.fuse.proposals.0.place", "valid integer"),
        ({"proposals": [placed(1.5)]}, "moa.fuse.proposals.0.place", "valid integer"),
    ],
    ids=[str(number) for number in range(24)],
)
async def test_a_wrong_value_is_named(
    http: httpx.AsyncClient, scripted: Scripted, fuse: Any, param: str, says: str
) -> None:
    got = await http.post(CHAT, json=body(fuse))
    error = got.json()["error"]
    assert (got.status_code, error["code"], error["param"]) == (400, "invalid_request", param)
    assert error["message"].startswith(param)
    assert says in error["message"]
    assert scripted.asked == []


@pytest.mark.parametrize("count", [1, MOST_PROPOSALS])
async def test_few_and_many_proposals_are_taken(scripted: Scripted, count: int) -> None:
    settings = recipe().model_dump()
    settings["models"]["writer"]["context_tokens"] = 100_000
    api = create_api(Recipe.model_validate(settings), scripted)
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        fuse = {"proposals": [{"model": "", "text": f"text {n}"} for n in range(count)]}
        assert (await client.post(CHAT, json=body(fuse))).status_code == 200


async def test_one_model_alone_has_nothing_to_fuse(http: httpx.AsyncClient, scripted: Scripted) -> None:
    got = await http.post(CHAT, json=body({"proposals": GIVEN}, model="one"))
    error = got.json()["error"]
    assert (got.status_code, error["param"]) == (400, "moa.fuse")
    assert error["message"] == "moa.fuse is for the mixture: the model has to be 'mix', not 'one'"
    assert scripted.asked == []


async def test_null_is_the_same_as_no_fuse(http: httpx.AsyncClient, scripted: Scripted) -> None:
    assert (await http.post(CHAT, json=body(None))).status_code == 200
    assert sorted(asked(scripted)) == ["one", "two", "writer"]


async def test_too_much_for_the_context_is_refused_before_any_call(
    http: httpx.AsyncClient, scripted: Scripted
) -> None:
    got = await http.post(CHAT, json=body({"proposals": [{"model": "a", "text": "t"}] * 250}))
    assert (got.status_code, got.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert scripted.asked == []


async def test_a_key_fuses_with_the_models_that_it_may_ask(scripted: Scripted) -> None:
    secret = generate_key()
    allowance = Allowance(models=("mix", "two"))
    key = Key("alice", hashlib.sha256(secret.encode()).digest(), allowance)
    api = create_api(recipe(), scripted, [key])
    headers = {"authorization": f"Bearer {secret}"}
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://a", headers=headers) as client:
        for name, status in ((None, 200), ("writer", 200), ("two", 200), ("one", 400)):
            fuse = {"proposals": GIVEN, "aggregator": name}
            got = await client.post(CHAT, json=body(fuse))
            assert got.status_code == status, name
    assert got.json()["error"]["message"].endswith("no model 'one' here; there are writer, two")


async def test_it_takes_the_capacity_of_the_aggregator_alone(puppets: Puppets) -> None:
    admission = AdmissionControl({"one": 1, "two": 1, "writer": 1})
    api = create_api(recipe(), puppets, admission=admission)
    whole = Exchange(api, {"model": "mix", "messages": HELLO})
    calls = [await puppets.call(name) for name in ("one", "two")]
    refused = Exchange(api, body({"proposals": GIVEN}))
    assert (await refused.start())["status"] == 429  # the whole answer holds the aggregator's room
    for call in calls:
        call.say("text")
        call.end()
    await puppets.answer("writer")
    await whole.app
    first = Exchange(api, body({"proposals": GIVEN, "aggregator": "one"}))
    second = Exchange(api, body({"proposals": GIVEN, "aggregator": "two"}))
    for name in ("one", "two"):
        await puppets.answer(name)
    assert [(await each.start())["status"] for each in (first, second)] == [200, 200]


async def test_a_fusion_may_pick_in_place_of_writing(
    http: httpx.AsyncClient, scripted: Scripted
) -> None:
    """The scripted writer says words and never a number, so the most trusted stands in, and says so."""
    fuse = {"proposals": GIVEN, "method": "select"}
    got = (await http.post(CHAT, json=body(fuse, moa={"events": True}))).json()
    assert got["choices"][0]["message"]["content"] == "first given"
    moa = got["moa"]
    assert (moa["method"], moa["answered_by"], moa["degraded"]) == ("stand_in", "one", True)
    assert (moa["why"], moa["chosen"]["place"]) == ("no model said which proposal is the best", 0)
    assert asked(scripted) == ["writer"] * 2
    assert {sampling.max_tokens for _, _, sampling in scripted.asked} == {1}
    assert got["usage"]["by_model"][0]["calls"] == 2


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("vote", "vote needs a recipe that says where answers stand"),
        ("blend", "'merge', 'select', 'select_or_merge' or 'vote'"),
    ],
)
async def test_a_fusion_by_a_method_that_cannot_be(
    http: httpx.AsyncClient, method: str, words: str
) -> None:
    got = await http.post(CHAT, json=body({"proposals": GIVEN, "method": method}))
    assert got.status_code == 400
    assert words in got.json()["error"]["message"]
    assert got.json()["error"]["param"] == "moa.fuse.method"


async def test_a_vote_over_given_proposals_asks_nobody() -> None:
    data = recipe().model_dump() | {"exit": {"answer": "number"}}
    mixture = Recipe.model_validate(data)
    models = Scripted(mixture)
    await models.start()
    given = [{"model": name, "text": f"it is {n}"} for name, n in (("x", 1), ("y", 2), ("z", 2))]
    transport = httpx.ASGITransport(create_api(mixture, models))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        got = (await client.post(CHAT, json=body({"proposals": given, "method": "vote"}))).json()
    assert (got["moa"]["method"], got["moa"]["answered_by"]) == ("vote", "y")
    assert got["choices"][0]["message"]["content"] == "it is 2"
    assert models.asked == []
