"""The API's OpenAPI description.

The description is made from the pydantic classes that read requests and write answers, from the error
tree and from the recipe. So it changes with what the server does.
"""

import inspect
import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema
from starlette.middleware import Middleware

from configs.errors import RequestError, WeightsError
from configs.extra_parameters import CONSTRAINTS, KNOWN
from configs.schema import Recipe
from serve_app.access.auth import METRICS
from serve_app.error_schema import ErrorReply
from serve_app.http.answer_schema import ChatCompletion, ChatCompletionChunk
from serve_app.http.model_schema import ModelList
from serve_app.http.parameters import IGNORED, TOOL_LISTS, TOOL_SWITCHES, UNSUPPORTED
from serve_app.http.request import EMPTY, ChatRequest
from serve_app.http.state import ServerState

Json = dict[str, Any]
CHAT = "/v1/chat/completions"
SCHEMAS = "#/components/schemas/"
"""What references to schemas in the document begin with."""
EVENT: Json = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {
            "type": "string",
            "description": "A ChatCompletionChunk or an ErrorReply as JSON; at last `[DONE]`.",
            "anyOf": [
                {"const": "[DONE]"},
                {
                    "contentMediaType": "application/json",
                    "contentSchema": {
                        "anyOf": [
                            {"$ref": f"{SCHEMAS}ChatCompletionChunk"},
                            {"$ref": f"{SCHEMAS}ErrorReply"},
                        ]
                    },
                },
            ],
        }
    },
}
"""Schema of one server-sent event. The document has this schema under `itemSchema`, a keyword of
OpenAPI 3.2 that readers of 3.1 ignore."""
OPENAI_NAMES = {
    "openai__types__chat__chat_completion_chunk__": "Chunk",
    "openai__types__chat__chat_completion__": "",
}
"""Prefixes of names in the document, by the prefixes that pydantic gives. Where two modules have a
class of the same name, pydantic puts the module before the name."""


class DescribedApi(FastAPI):
    """An app whose OpenAPI description also has the request bodies and the answers. FastAPI knows
    neither, because the routes read bodies and write answers by themselves."""

    def __init__(self, recipe: Recipe, middleware: Sequence[Middleware]) -> None:
        summary = recipe.description or None
        super().__init__(
            title="SlimMoA", summary=summary, middleware=middleware, redirect_slashes=False
        )
        self._recipe = recipe

    def openapi(self) -> Json:
        if self.openapi_schema is None:
            self.openapi_schema = _complete(super().openapi(), self._recipe)
        return self.openapi_schema


def _complete(document: Json, recipe: Recipe) -> Json:
    """FastAPI's document, completed with the schemas, the request bodies and every answer."""
    names = [recipe.name, *recipe.names]
    engines = {model.engine for model in recipe.models.values()}
    document["components"] = {"schemas": _schemas(names, engines)}
    paths = document["paths"]
    errors = _errors()
    paths[CHAT]["post"] |= {"requestBody": _body(), "responses": _answers() | errors}
    answers = _responses() | errors
    paths["/v1/responses"]["post"] |= {"requestBody": _responses_body(), "responses": answers}
    refusals = {status: errors[status] for status in ("401", "403")}
    listed = {"200": _json("The models that the key may use.", "ModelList")}
    paths["/v1/models"]["get"]["responses"] = listed | refusals
    state = paths["/v1/state"]["get"]
    state["responses"] = {"200": _json("The state.", "ServerState")} | refusals
    if METRICS in paths:
        numbers = {"description": "The numbers.", "content": {"text/plain": {}}}
        paths[METRICS]["get"]["responses"] = {"200": numbers} | refusals
    one = paths["/v1/models/{model}"]["get"]
    one["parameters"][0]["schema"] = {"type": "string", "enum": names}
    one["responses"] = {"200": _json("The model.", "ModelCard"), "404": errors["404"]} | refusals
    ready = paths["/readyz"]["get"]["responses"]
    ready |= {"503": {**ready["200"], "description": "The mixture cannot answer now."}} | refusals
    return document


def _schemas(names: list[str], engines: Collection[str]) -> Json:
    _, document = models_json_schema(
        [
            (ChatRequest, "validation"),
            (ChatCompletion, "serialization"),
            (ChatCompletionChunk, "serialization"),
            (ErrorReply, "serialization"),
            (ModelList, "serialization"),
            (ServerState, "serialization"),
        ],
        ref_template=SCHEMAS + "{model}",
    )
    schemas = _with_short_names(document["$defs"])
    for name in (
        "ChatRequest",
        "ChatMessage",
        "ToolCall",
        "StreamOptions",
        "MoaOptions",
        "Fusion",
        "GivenProposal",
    ):
        _allow_null_where_optional(schemas[name])
    fields = schemas["ChatRequest"]["properties"]
    description = fields["model"]["description"]
    fields["model"] = {"enum": names, "type": "string", "description": description}
    fields |= {name: {"description": "Accepted; changes nothing."} for name in sorted(IGNORED)}
    fields |= {name: _tool_list() for name in sorted(TOOL_LISTS)}
    fields |= {name: {"description": "As in OpenAI's API."} for name in TOOL_SWITCHES}
    del fields["tool_use"]
    fields |= {name: _only(harmless) for name, harmless in UNSUPPORTED.items()}
    for name in set(CONSTRAINTS) & set(EMPTY):
        if any(name not in KNOWN[engine] for engine in engines):
            fields[name] = _only(EMPTY[name])
    return schemas


def _with_short_names(schemas: Json) -> Json:
    text = json.dumps(schemas)
    for prefix, short in OPENAI_NAMES.items():
        text = text.replace(prefix, short)
    renamed: Json = json.loads(text)
    return renamed


def _allow_null_where_optional(schema: Json) -> None:
    for name in set(schema["properties"]) - set(schema.get("required", ())):
        schema["properties"][name] = _or_null(schema["properties"][name])


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _tool_list() -> Json:
    about = "Tools that the answer may call, in OpenAI's form; docs/tools.md has more."
    return _or_null({"type": "array", "items": {"type": "object"}, "description": about})


def _only(harmless: tuple[Any, ...]) -> Json:
    return {
        "enum": [*harmless, None],
        "description": "Not supported; only values that do not need the feature are accepted.",
    }


def _json(description: str, schema: str) -> Json:
    content = {"application/json": {"schema": {"$ref": f"{SCHEMAS}{schema}"}}}
    return {"description": description, "content": content}


def _body() -> Json:
    return _json("A conversation, and how to answer it.", "ChatRequest") | {"required": True}


def _responses_body() -> Json:
    """The body of the Responses API, as far as it differs from a chat completion."""
    properties = {
        "model": {"type": "string"},
        "input": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]},
        "instructions": _or_null({"type": "string"}),
        "stream": _or_null({"type": "boolean"}),
        "max_output_tokens": _or_null({"type": "integer"}),
    }
    schema = {"type": "object", "required": ["model"], "properties": properties}
    return {"content": {"application/json": {"schema": schema}}, "required": True}


def _responses() -> Json:
    description = "The answer as OpenAI's Response object; server-sent events with `stream`."
    content = {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {}}
    return {"200": {"description": description, "content": content}}


def _answers() -> Json:
    answer = _json("The answer; a stream of server-sent events with `stream`.", "ChatCompletion")
    answer["content"]["text/event-stream"] = {"itemSchema": EVENT}
    answer["headers"] = {
        "x-slimmoa-degraded": {
            "description": "Whether the answer is degraded; streams say so at their end instead.",
            "schema": {"type": "string", "enum": ["true", "false"]},
        }
    }
    return {"200": answer}


def _errors() -> Json:
    """The answers for errors: one for each HTTP status of the error tree, and 415."""
    causes: dict[int, list[str]] = {415: ["The body is not application/json, or it is compressed."]}
    for error in error_classes():
        causes.setdefault(error.status, []).append(meaning(error))
    return {
        str(status): _json(" ".join(lines), "ErrorReply") for status, lines in sorted(causes.items())
    }


def error_classes(base: type[RequestError] = RequestError) -> Iterator[type[RequestError]]:
    """Every class of errors below `base` that an answer can carry, in the order of the tree.

    WeightsError is left out, because it is raised while a model starts and never by a request. Left out
    as well are the classes that Ray derives at run time from an error of ours that crosses processes.
    """
    for error in base.__subclasses__():
        if error is not WeightsError and error.__module__ == RequestError.__module__:
            yield error
            yield from error_classes(error)


def meaning(error: type[RequestError]) -> str:
    """What an error means, in one line: the first paragraph of the docstring of its class."""
    return " ".join((inspect.getdoc(error) or "").split("\n\n")[0].split())
