"""The models that are served, whether the mixture can answer, and the API's own description."""

import asyncio
from typing import Any

import httpx
import jsonschema
import pytest
from openai.types import Model
from ray.exceptions import RayTaskError

from configs.errors import EngineError, EngineUnavailable
from serve_app.error_schema import error_body
from serve_app.http import health
from serve_app.http.api import create_api
from serve_app.http.openapi import error_classes
from serve_app.mixture.context_budget import context_tokens
from tests.unit.serve_app.conftest import CHAT, MIXTURE, Puppets, recipe


@pytest.fixture
async def client(puppets: Puppets) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_api(recipe(quorum=2), puppets))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


async def test_the_mixture_and_every_model_are_listed(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/models")).json()
    assert listed["object"] == "list"
    models = [Model.model_validate(card, strict=True) for card in listed["data"]]
    assert {model.id: model.owned_by for model in models} == {
        "mix": "slimmoa",
        "one": "scripted",
        "two": "scripted",
        "writer": "scripted",
    }


async def test_a_models_card_tells_its_context_under_the_names_of_other_servers() -> None:
    mixture = recipe(quorum=1)
    models = dict(mixture.models)
    models["two"] = models["two"].model_copy(update={"context_tokens": 1024})
    mixture = mixture.model_copy(update={"models": models})
    transport = httpx.ASGITransport(create_api(mixture, Puppets()))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        cards = {card["id"]: card for card in (await client.get("/v1/models")).json()["data"]}
        one = (await client.get("/v1/models/two")).json()
    assert one == cards["two"]
    for model, card in cards.items():
        context = card["max_model_len"]
        assert {card[n] for n in ("context_length", "context_window", "max_context_length")} == {
            context
        }
        assert card["meta"] == {"n_ctx": context}
        if model != "mix":
            assert context == {"two": 1024}.get(model, 4096)
    # The aggregator also reads the instructions and 32 tokens of each of two references.
    instructions = len(mixture.references.prompt) // 4
    assert cards["mix"]["max_model_len"] == 4096 - 2 * 32 - instructions


@pytest.mark.parametrize(("quorum", "context"), [(1, 4096 - 64), (2, 1024)])
def test_the_mixtures_context_is_one_that_a_quorum_of_proposers_can_hold(
    quorum: int, context: int
) -> None:
    mixture = recipe(quorum=quorum)
    models = dict(mixture.models)
    models["two"] = models["two"].model_copy(update={"context_tokens": 1024})
    references = mixture.references.model_copy(update={"prompt": ""})
    mixture = mixture.model_copy(update={"models": models, "references": references})
    # Answers of proposer and aggregator are equally long, so prompt + answer is the proposer's context.
    assert context_tokens(mixture) == context


async def test_one_model_is_shown_by_name(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/models/one")).json()["id"] == "one"
    missing = await client.get("/v1/models/three")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


async def test_the_ingress_is_healthy_even_without_models(
    client: httpx.AsyncClient, puppets: Puppets
) -> None:
    puppets.down = {name: EngineUnavailable("it is gone") for name in ("one", "two", "writer")}
    assert (await client.get("/healthz")).json() == {"status": "ok"}


@pytest.mark.parametrize(("down", "status"), [([], 200), (["one"], 503), (["writer"], 503)], ids=str)
async def test_it_is_ready_with_a_quorum_and_an_aggregator(
    client: httpx.AsyncClient, puppets: Puppets, down: list[str], status: int
) -> None:
    puppets.down = {name: EngineUnavailable("it is gone", model=name) for name in down}
    response = await client.get("/readyz")
    assert response.status_code == status
    expected = {name: "it is gone" if name in down else "ready" for name in ("one", "two", "writer")}
    assert response.json() == {"ready": status == 200, "models": expected}


async def test_a_model_that_does_not_say_is_not_up(
    client: httpx.AsyncClient, puppets: Puppets, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(_model: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(puppets, "stats", silent)
    monkeypatch.setattr(health, "READY_S", 0)
    assert (await client.get("/readyz")).json()["models"]["one"] == "not up"


async def test_the_document_describes_the_request(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    body = document["paths"][CHAT]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = jsonschema.Draft202012Validator(document | body)
    validator.validate(MIXTURE | {"stream": True, "stream_options": {"include_usage": True}})
    for wrong in ({"temperature": 3}, {"messages": [{"role": "robot"}]}, {"moa": {"x": 1}}):
        assert not validator.is_valid(MIXTURE | wrong)


async def test_the_document_has_the_answers_and_every_error(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    answers = document["paths"][CHAT]["post"]["responses"]
    assert set(answers["200"]["content"]) == {"application/json", "text/event-stream"}
    refused = {"400", "401", "403", "404", "408", "413", "415", "429"}
    assert set(answers) == {"200", *refused, "502", "503", "504"}
    validator = jsonschema.Draft202012Validator(
        document | answers["502"]["content"]["application/json"]["schema"]
    )
    validator.validate(error_body(EngineError("it broke", model="one")))
    assert not validator.is_valid({"error": "it broke"})


def test_classes_that_ray_derives_from_an_error_are_not_described() -> None:
    described = list(error_classes())
    task_error: Any = RayTaskError  # without types of its own
    derived = task_error("call", "traceback", EngineError("it broke")).as_instanceof_cause()
    assert isinstance(derived, EngineError)
    assert list(error_classes()) == described


async def test_the_document_knows_the_models(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    asked = document["components"]["schemas"]["ChatRequest"]["properties"]["model"]
    assert asked["enum"] == ["mix", "one", "two", "writer"]
    (parameter,) = document["paths"]["/v1/models/{model}"]["get"]["parameters"]
    assert parameter["schema"]["enum"] == asked["enum"]


async def test_the_document_describes_every_field_that_answers_add_to_openais(
    client: httpx.AsyncClient,
) -> None:
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    moa = schemas["ChatCompletionChunk"]["properties"]["moa"]["anyOf"][0]
    assert set(moa["discriminator"]["mapping"]) == {
        "stage.started",
        "proposal.thinks",
        "proposal.delta",
        "proposal.done",
        "proposal.dropped",
        "aggregator.failed",
        "trimmed",
        "retried",
        "decided",
        "stage.done",
        "summary",
    }
    names = {reference.rpartition("/")[2] for reference in moa["discriminator"]["mapping"].values()}
    names |= {"MissingModel", "TrimmedReferences", "RetriedCall", "StageTime", "ModelUsage"}
    for name in names:
        fields = schemas[name]["properties"]
        assert [f for f, value in fields.items() if f != "type" and "description" not in value] == []


async def test_every_reference_in_the_document_resolves(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    seen = 0

    def walk(node: Any) -> None:
        nonlocal seen
        if isinstance(node, dict):
            if isinstance(reference := node.get("$ref"), str):
                seen += 1
                target = document
                for step in reference.removeprefix("#/").split("/"):
                    target = target[step]
            node = list(node.values())
        for child in node if isinstance(node, list) else []:
            walk(child)

    walk(document)
    assert seen >= 4
