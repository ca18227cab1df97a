"""docs/api.md: the prose of api.md beside this file, with tables made from the server's models."""

import inspect
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from fastapi.routing import APIRoute
from pydantic import BaseModel

from configs.errors import RequestError
from configs.extra_parameters import CONSTRAINTS, KNOWN, STRUCTURES, ExtraParameters
from docs.pages import recorded
from serve_app.access.auth import OPEN_PATHS
from serve_app.error_schema import ErrorObject
from serve_app.http.aliases import RENAMED
from serve_app.http.answer_schema import ModelUsage, TokenSum
from serve_app.http.api import CORS_HEADERS, create_api
from serve_app.http.event_schema import MoaEvent
from serve_app.http.fusion import Fusion, GivenProposal
from serve_app.http.messages import HARMLESS_FIELDS, ChatMessage, TextPart, ToolCall, ToolFunction
from serve_app.http.moa_fields import ReferenceFrom
from serve_app.http.openapi import error_classes, meaning
from serve_app.http.parameters import HARMLESS, IGNORED, PREFIXES, TOOL_LISTS, UNSUPPORTED
from serve_app.http.request import ChatRequest, MoaOptions, StreamOptions
from serve_app.http.state import (
    CardState,
    MemberState,
    MixtureState,
    ModelCapacity,
    ModelWithoutCard,
    ServerState,
)
from serve_app.http.summary_schema import (
    MissingModel,
    MoaSummary,
    RetriedCall,
    RoutedRequest,
    StageTime,
    TrimmedReferences,
)
from serve_app.recent_report import ModelRates, Rates, RecentAnswer, RecentRefusal
from tests.unit.serve_app.conftest import Scripted

TEMPLATE = Path(__file__).with_suffix(".md")
MODELS: tuple[type[BaseModel], ...] = (
    ChatRequest,
    ChatMessage,
    TextPart,
    ToolCall,
    ToolFunction,
    StreamOptions,
    MoaOptions,
    Fusion,
    GivenProposal,
    MoaSummary,
    MissingModel,
    TrimmedReferences,
    RetriedCall,
    RoutedRequest,
    StageTime,
    ReferenceFrom,
    TokenSum,
    ModelUsage,
    ServerState,
    MixtureState,
    CardState,
    MemberState,
    ModelWithoutCard,
    ModelCapacity,
    Rates,
    ModelRates,
    RecentAnswer,
    RecentRefusal,
    ErrorObject,
)
HEADINGS = {"MoaSummary": "the-summary", "ProposalDoneEvent": "proposaldone"}
"""Anchors of the models whose section is not named after their class."""
WHAT_TO_DO = {
    "invalid_request": "Correct the field that `param` and the message name.",
    "context_length_exceeded": "Shorten the conversation or ask for fewer `max_tokens`.",
    "template_refused": "Change the roles of the messages as the message says.",
    "request_timeout": "Send the body faster, or raise `limits.read_timeout_s`.",
    "request_too_large": "Send a smaller body, or raise `limits.max_body_bytes`.",
    "invalid_api_key": "Send one valid key.",
    "permission_denied": "Do what the message says: ask from the same machine, or with a key that may.",
    "model_not_found": "Take a name from `/v1/models`.",
    "overloaded": "Wait for `Retry-After` seconds and send the same request again.",
    "rate_limit_exceeded": "Wait for `Retry-After` seconds and send the same request again.",
    "engine_error": "Send the request again once; if it fails again, the model's log has the reason.",
    "content_filter": "Say it in other words, or ask another model.",
    "only_reasoning": "Send the request with `reasoning_effort: none`, or with more `max_tokens`.",
    "empty": "Send the request again, with another `seed` or more `max_tokens`.",
    "engine_unavailable": "Wait for `Retry-After` seconds; Ray Serve starts a lost replica again.",
    "no_replica": "Wait until `/readyz` answers with 200.",
    "server_unreachable": "Check the server that the model's `base_url` names.",
    "shutting_down": "Send the request again: another ingress answers, or this one once it is back.",
    "quorum_not_met": "Act on the causes that the message lists, or wait for `Retry-After` seconds.",
    "deadline_exceeded": "Ask for less text, or raise `limits.deadline_s`.",
    "internal_error": "Report it; the log has the lines of source, and no text of the conversation.",
}
"""What a client should do about an error, by its code."""
STRUCTURE_NAMES = {
    "json_object": (
        '`response_format: {"type": "json_object"}`, `format: "json"`, '
        "`structured_outputs.json_object`",
        "any JSON object",
    ),
    "json_schema": (
        '`response_format: {"type": "json_schema", ...}`, `json_schema`, `guided_json`, `format`, '
        "`structured_outputs.json`",
        "JSON that fits a schema",
    ),
    "choice": ("`guided_choice`, `structured_outputs.choice`", "one of several texts"),
    "regex": (
        "`guided_regex`, `regex`, `structured_outputs.regex`",
        "a text that a regular expression matches",
    ),
    "grammar": (
        "`grammar`, `ebnf`, `guided_grammar`, `structured_outputs.grammar`",
        "a text of a grammar",
    ),
}
"""How requests ask for each form of an answer, and what the form is."""
OTHER_FORMS = (
    ("`options: {...}`, `extra_body: {...}`", "the parameters inside"),
    (
        "`think`, `enable_thinking`, `thinking`, `disable_reasoning` with true or false",
        "`chat_template_kwargs.enable_thinking` and `.thinking`",
    ),
    (
        '`thinking: {"type": "enabled", "budget_tokens": n}`',
        "the same, and `thinking_token_budget`",
    ),
    ("`think` or `thinking` with an effort, `reasoning.effort`", "`reasoning_effort`"),
    ("`reasoning.max_tokens`", "`thinking_token_budget`"),
    ('`reasoning_effort: "auto"` or `"default"`', "no parameter"),
    ("`do_sample: false`", "`temperature: 0`"),
)
"""What other servers write in another form than ours, and how it is read."""
SIGNS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def api_page() -> str:
    """The whole page."""
    parts = {model.__name__: _fields(model) for model in MODELS} | {
        "routes": _routes(),
        "cors_headers": " and ".join(f"`{header}`" for header in CORS_HEADERS),
        "extra": _extra(),
        "structure": _structures(),
        "aliases": _aliases(),
        "harmless": _harmless(),
        "ignored": ", ".join(f"`{name}`" for name in sorted(IGNORED)),
        "harmless_fields": ", ".join(f"`{name}`" for name in sorted(HARMLESS_FIELDS)),
        "tool_lists": " and ".join(f"`{name}`" for name in sorted(TOOL_LISTS)),
        "unsupported": _unsupported(),
        "recipe": yaml.safe_dump(
            recorded.RECIPE.model_dump(mode="json", exclude_defaults=True, exclude_unset=True),
            sort_keys=False,
        ).strip(),
        "request": _lines(recorded.REQUEST),
        "answer": _lines(recorded.answer()),
        "stream": recorded.stream().strip(),
        "events": "\n\n".join(map(_event, get_args(MoaEvent))),
        "errors": _errors(),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], TEMPLATE.read_text("utf-8"))


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [list(head), *map(list, rows)]
    cells.insert(1, ["---"] * len(cells[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _text(text: str) -> str:
    """A docstring as one line of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _routes() -> str:
    api = create_api(recorded.RECIPE, Scripted(recorded.RECIPE))
    rows = [
        (f"`{method} {r.path}`", _text(r.description), "no" if r.path in OPEN_PATHS else "yes")
        for r in api.routes
        if isinstance(r, APIRoute)
        for method in sorted(r.methods or ())
    ]
    return _table(("route", "what it gives", "needs a key, where there are keys"), rows)


def _fields(model: type[BaseModel]) -> str:
    """A table of the model's fields, without a `type` that has only one value and no description."""
    schema = model.model_json_schema(mode="serialization")
    required = schema.get("required", ())
    rows = []
    for name, value in schema["properties"].items():
        if model is ChatRequest and name in ExtraParameters.model_fields:
            continue  # they have a table of their own
        what = model.model_fields[name].description
        if what or "const" not in value:
            kind = _kind(value, shows_null=name in required)
            rows.append((f"`{name}`" if name in required else f"`{name}`?", kind, _text(what or "")))
    return _table(("field", "kind", "what it is"), rows)


def _kind(value: dict[str, Any], *, shows_null: bool) -> str:
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{HEADINGS.get(name, name.lower())})"
    if "const" in value or "enum" in value:
        return " or ".join(f"`{json.dumps(v)}`" for v in value.get("enum", [value.get("const")]))
    if "anyOf" in value:
        kinds = [v for v in value["anyOf"] if shows_null or v.get("type") != "null"]
        return " or ".join(_kind(v, shows_null=shows_null) for v in kinds)
    if value.get("type") == "array":
        return f"list of {_kind(value['items'], shows_null=shows_null)}"
    bounds = "".join(f" {sign} {_number(value[name])}" for name, sign in SIGNS.items() if name in value)
    return str(value["type"]) + bounds


def _number(value: float) -> str:
    """A bound as people read it; those of 64-bit integers as a power."""
    return f"{'-' if value < 0 else ''}2^63" if abs(value) == 2**63 else f"{value:,}"


def _extra() -> str:
    """A table of the parameters that only some engines take."""
    rows = []
    for name, field in ExtraParameters.model_fields.items():
        if name == "tool_use":  # what `tools` and `tool_choice` become; no parameter of requests
            continue
        takers = [engine for engine in ("llamacpp", "vllm", "openai_http") if name in KNOWN[engine]]
        engines = ", ".join(f"`{engine}`" for engine in takers)
        otherwise = "refused" if name in CONSTRAINTS else "left out"
        rows.append((f"`{name}`", _text(field.description or ""), engines, otherwise))
    return _table(("parameter", "what it is", "engines", "with others"), rows)


def _structures() -> str:
    """A table of the forms of answers: how requests ask for each, and which engines can do it."""
    rows = []
    for kind, (asked, what) in STRUCTURE_NAMES.items():
        can = [engine for engine, kinds in STRUCTURES.items() if kind in kinds]
        rows.append((what, asked, ", ".join(f"`{engine}`" for engine in can)))
    return _table(("form", "asked by", "engines"), rows)


def _aliases() -> str:
    """A table of other servers' names of parameters."""
    names: dict[str, list[str]] = {}
    for other, our in RENAMED.items():
        names.setdefault(our, []).append(f"`{other}`")
    rows = [(", ".join(others), f"`{our}`") for our, others in names.items()]
    return _table(("sent", "read as"), [*rows, *OTHER_FORMS])


def _harmless() -> str:
    """The parameters that are ignored and named, by what they are about."""
    starts = ", ".join(f"`{start}`" for start in PREFIXES)
    rows = [(about, ", ".join(f"`{n}`" for n in sorted(names))) for about, names in HARMLESS.items()]
    rows.append(("whatever a proxy adds", f"every name that begins with {starts}"))
    return _table(("about", "parameters"), rows)


def _unsupported() -> str:
    rows = [
        (f"`{name}`", ", ".join(f"`{json.dumps(value)}`" for value in harmless) or "none")
        for name, harmless in UNSUPPORTED.items()
    ]
    return _table(("parameter", "accepted values"), rows)


def _event(event: type[BaseModel]) -> str:
    (kind,) = get_args(event.model_fields["type"].annotation)
    return f"### `{kind}`\n\n{inspect.getdoc(event)}\n\n{_fields(event)}"


def _errors() -> str:
    rows = {
        error.code: (str(error.status), f"`{error.code}`", f"`{error.kind}`", _text(meaning(error)))
        for error in error_classes()
    }
    code = RequestError.code
    defect = "A defect of the server; the message names only the class of the error."
    rows[code] = (str(RequestError.status), f"`{code}`", f"`{RequestError.kind}`", defect)
    return _table(
        ("status", "code", "type", "what it means", "what to do"),
        ((*row, WHAT_TO_DO[code]) for code, row in sorted(rows.items(), key=_by_status)),
    )


def _by_status(item: tuple[str, tuple[str, ...]]) -> tuple[str, ...]:
    return item[1][:2]


def _lines(value: Any) -> str:
    """JSON with one line for each field of the object and of the objects in it."""
    return "\n".join(_object_lines(value, depth=2))


def _object_lines(value: dict[str, Any], depth: int, indent: str = "") -> Iterator[str]:
    yield "{"
    for n, (key, inner) in enumerate(value.items()):
        comma = "," if n < len(value) - 1 else ""
        text = json.dumps(inner, ensure_ascii=False)
        if depth > 1 and isinstance(inner, dict) and len(text) > 60:
            text = "\n".join(_object_lines(inner, depth - 1, indent + "  "))
        yield f"{indent}  {json.dumps(key)}: {text}{comma}"
    yield f"{indent}}}"
