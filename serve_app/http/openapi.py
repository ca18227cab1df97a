"""The API's OpenAPI description: made of the classes that read requests and write answers, the error
tree and the recipe, so that it cannot say anything else than they do."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from openai.types import Model
from openai.types.chat import ChatCompletion
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from configs.errors import RequestError, WeightsError
from configs.schema import Recipe
from serve_app.http.request import IGNORED, OFFERS, UNSUPPORTED, ChatRequest
from serve_app.http.response import ErrorReply

CHAT = "/v1/chat/completions"
Json = dict[str, Any]
# Of each event; OpenAPI's own way to say so is of version 3.2.
EVENT: Json = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {
            "type": "string",
            "description": "A chat.completion.chunk or an ErrorReply, as JSON; at last `[DONE]`.",
        }
    },
}


class ModelList(BaseModel):
    """What is served here."""

    object: str
    data: list[Model]


class DescribedApi(FastAPI):
    """Describes bodies and answers, which FastAPI would do only for those that it makes itself."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(title="SlimMoA", summary=recipe.description or None)
        self._recipe = recipe

    def openapi(self) -> Json:
        if self.openapi_schema is None:
            self.openapi_schema = _complete(super().openapi(), self._recipe)
        return self.openapi_schema


def _complete(document: Json, recipe: Recipe) -> Json:
    names = [recipe.name, *recipe.models]
    document["components"] = {"schemas": _schemas(names)}
    paths = document["paths"]
    errors = _errors()
    paths[CHAT]["post"] |= {"requestBody": _body(), "responses": _answers() | errors}
    access = {status: errors[status] for status in ("401", "403")}
    listed = {"200": _json("What is served here.", "ModelList")}
    paths["/v1/models"]["get"]["responses"] = listed | access
    one = paths["/v1/models/{model}"]["get"]
    one["parameters"][0]["schema"] = {"type": "string", "enum": names}
    one["responses"] = {"200": _json("The model.", "Model"), "404": errors["404"]} | access
    ready = paths["/readyz"]["get"]["responses"]
    ready |= {"503": {**ready["200"], "description": "The mixture cannot answer now."}} | access
    return document


def _schemas(names: list[str]) -> Json:
    _, document = models_json_schema(
        [
            (ChatRequest, "validation"),
            (ChatCompletion, "serialization"),
            (ErrorReply, "serialization"),
            (ModelList, "serialization"),
        ],
        ref_template="#/components/schemas/{model}",
    )
    schemas: Json = document["$defs"]
    for name in ("ChatRequest", "ChatMessage", "StreamOptions", "MoaOptions"):
        _let_null_be_nothing(schemas[name])
    asked, answered = schemas["ChatRequest"]["properties"], schemas["ChatCompletion"]["properties"]
    asked["model"] = {"enum": names, "type": "string", "description": asked["model"]["description"]}
    asked |= {name: {"description": "Accepted; changes nothing."} for name in sorted(IGNORED)}
    asked |= {name: _offer() for name in sorted(OFFERS)}
    asked |= {name: _only(harmless) for name, harmless in UNSUPPORTED.items()}
    answered["moa"] = {"type": "object", "description": "How the mixture came to its answer."}
    return schemas


def _let_null_be_nothing(schema: Json) -> None:
    for name in set(schema["properties"]) - set(schema.get("required", ())):
        schema["properties"][name] = _or_null(schema["properties"][name])


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _offer() -> Json:
    return _or_null({"type": "array", "description": "An offer that the models decline."})


def _only(harmless: tuple[Any, ...]) -> Json:
    return {
        "enum": [*harmless, None],
        "description": "Not here; only what asks for nothing is taken.",
    }


def _json(description: str, schema: str) -> Json:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}


def _body() -> Json:
    return _json("A conversation, and how to go on with it.", "ChatRequest") | {"required": True}


def _answers() -> Json:
    answer = _json("The answer; a stream of server-sent events with `stream`.", "ChatCompletion")
    answer["content"]["text/event-stream"] = {"itemSchema": EVENT}
    answer["headers"] = {
        "x-slimmoa-degraded": {
            "description": "Whether proposals are missing; not on streams, which say so in their end.",
            "schema": {"type": "string", "enum": ["true", "false"]},
        }
    }
    return {"200": answer}


def _errors() -> Json:
    """The answers for errors: one for each status of the tree, and for a body that is no JSON."""
    causes: dict[int, list[str]] = {415: ["The body is not of the type application/json."]}
    for error in _tree(RequestError):
        if error is not WeightsError:  # raised at start
            causes.setdefault(error.status, []).append((error.__doc__ or "").split("\n")[0])
    return {str(status): _json(" ".join(said), "ErrorReply") for status, said in sorted(causes.items())}


def _tree(base: type[RequestError]) -> Iterator[type[RequestError]]:
    for error in base.__subclasses__():
        yield error
        yield from _tree(error)
