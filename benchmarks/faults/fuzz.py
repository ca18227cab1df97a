"""Fuzzing of the HTTP API from its own OpenAPI description, and from the types of its clients.

    python -m benchmarks.faults.fuzz [--cases 5000] [--seed 1] [--url URL] [--json FILE]
    python -m benchmarks.faults.fuzz --clients [--bodies FILE] ...

With `--clients`, requests, messages and items are made from the types of clients' packages: of those
that are installed here, or wherever `benchmarks.faults.client_bodies` has written FILE.
`client_fuzz.py` says what has to hold. At the end the server has to answer two plain requests.

Without, Schemathesis makes requests that the description allows, requests that it forbids, and of the
former some that are mended to keep the rules which a JSON schema cannot tell. A case fails if the
answer is a 500, is not what the description says of its status, is an error of another shape than
OpenAI's, is a stream with something else than chunks or without its end, takes longer than CASE_S, or
serves what the description forbids.

The server is a scripted mixture on a real Ray Serve of its own, or the one at `--url`.
"""

import asyncio
import json as jsonlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, cast

import hypothesis
import schemathesis
import typer
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from openai.types.chat import ChatCompletionChunk
from requests import RequestException
from schemathesis import Case as AnyCase
from schemathesis import GenerationMode, Response
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from benchmarks.faults import client_bodies, client_fuzz
from benchmarks.shared.harness import Limit, report, run, serving
from configs.schema import Recipe
from serve_app.error_schema import ErrorReply

Case = AnyCase[Any]
CASE_S = 10.0
CHAT = "/v1/chat/completions"
AT_ONCE = 16
"""Cases made from clients' types that are on their way at a time."""
CHAT_SHARE = 0.9  # of the cases; the other paths have few different requests
KINDS = ("allowed", "mended", "forbidden")
LIMITS = ("max_tokens", "max_completion_tokens", "thinking_token_budget")
MOST_TOKENS = 500
"""Most tokens of a limit in a mended case: the models' context is small."""
WHOLE = (
    "max_tokens",
    "max_completion_tokens",
    "seed",
    "top_logprobs",
    "top_k",
    "thinking_token_budget",
    "min_keep",
    "repeat_last_n",
    "dry_allowed_length",
    "dry_penalty_last_n",
    "mirostat",
)
ALL_EVENTS = 100_000  # a stream of which Schemathesis reads less has no end
REFUSALS = ["400", "404", "413", "415"]  # of what the description forbids
SHOWN = 20
RECIPE = Recipe.model_validate(
    {
        "name": "mix",
        "description": "scripted models, two of which fail or hang now and then",
        "models": {
            "steady": {"engine": "scripted", "tokens": 8, "context_tokens": 1024},
            "fragile": {"engine": "scripted", "tokens": 8, "fail_share": 0.2, "hang_share": 0.01},
            "writer": {"engine": "scripted", "tokens": 16, "fail_share": 0.05},
        },
        "layers": [{"proposers": [{"model": "steady"}, {"model": "fragile"}]}],
        "aggregator": {"model": "writer"},
        "limits": {"quorum": 2, "layer_deadline_s": 1, "deadline_s": 2, "keepalive_s": 0.2},
    }
)


@dataclass(slots=True)
class Outcome:
    """What came of the cases. statuses: answers by operation, kind of case, and status."""

    statuses: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    slowest_s: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        """How many were answered."""
        return self.statuses.total()


def no_defect(_context: Any, response: Response, _case: Case) -> None:
    """No 500: the errors of the tree are others."""
    if response.status_code == 500:
        raise Failure(operation="", title="a defect", message=response.text[:500])


def errors_of_openais_shape(_context: Any, response: Response, case: Case) -> None:
    """Clients find the same fields in every error."""
    if response.status_code >= 400 and case.path != "/readyz":
        ErrorReply.model_validate_json(response.content, strict=True, extra="forbid")


def streams_of_chunks(_context: Any, response: Response, _case: Case) -> None:
    """A client can read every event, and tell the end from a broken connection."""
    kind = response.headers.get("content-type", [""])[0]
    if not kind.startswith("text/event-stream"):
        return
    *events, end, rest = response.text.split("\n\n")
    if (end, rest) != ("data: [DONE]", ""):
        raise Failure(operation="", title="a stream without an end", message=response.text[-500:])
    for event in events:
        data = event.removeprefix("data: ")
        if not event.startswith(":") and "error" not in jsonlib.loads(data):
            ChatCompletionChunk.model_validate_json(data, strict=True)


CHECKS: list[Any] = [
    no_defect,
    errors_of_openais_shape,
    streams_of_chunks,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


def fuzz(schema: BaseSchema, cases: int, seed: int) -> Outcome:
    """Send about so many cases, the same ones for the same seed; see what comes."""
    schema.config.max_stream_events = ALL_EVENTS
    schema.config.checks.negative_data_rejection.expected_statuses = REFUSALS
    request = schema.raw_schema["components"]["schemas"]["ChatRequest"]
    mixture = request["properties"]["model"]["enum"][0]
    outcome = Outcome()
    found: Any = schema.get_all_operations()
    operations = [result.ok() for result in found]
    for operation in operations:
        is_chat = operation.path == CHAT
        share = CHAT_SHARE if is_chat else (1 - CHAT_SHARE) / (len(operations) - 1)
        kinds = KINDS if is_chat else ("allowed", "forbidden")
        for kind in kinds:
            strategy = operation.as_strategy(generation_mode=_mode(kind))
            if kind == "mended":
                strategy = strategy.map(partial(_mended, mixture))
            elif kind == "forbidden":
                strategy = strategy.filter(_has_no_empty_object)
            _run(strategy, _sender(outcome, kind), max(1, round(cases * share / len(kinds))), seed)
    return outcome


def _mode(kind: str) -> GenerationMode:
    return GenerationMode.NEGATIVE if kind == "forbidden" else GenerationMode.POSITIVE


def _has_no_empty_object(case: Case) -> bool:
    """Whether no parameter is an object of nulls alone. The server reads a null as absent, in objects
    too, and so such an object as an empty one, which is allowed where the description may forbid the
    nulls."""
    values = case.body.values() if isinstance(case.body, dict) else ()
    objects = [value for value in values if isinstance(value, dict) and value]
    return not any(all(inner is None for inner in value.values()) for value in objects)


def _mended(mixture: str, case: Case) -> Case:
    """With the rules between fields kept, so that it gets as far as the engines."""
    given = cast("dict[str, Any]", deepcopy(case.body))
    body = {name: value for name, value in given.items() if value is not None}
    body["messages"] = [*map(_mended_message, body["messages"]), {"role": "user", "content": "hello"}]
    body |= {name: int(body[name]) for name in WHOLE if name in body}  # 1.0 is an integer to a schema
    body |= {name: body[name] % MOST_TOKENS + 1 for name in LIMITS if name in body}
    for name in ("continue_final_message", "add_generation_prompt"):
        body.pop(name, None)
    if "max_tokens" in body:
        body.pop("max_completion_tokens", None)
    body.pop("min_tokens", None)
    body["logprobs"] = "top_logprobs" in body and body["model"] != mixture
    if not body["logprobs"]:
        body.pop("top_logprobs", None)
    body["stream"] = "stream_options" in body or len(str(body)) % 2 == 0
    case.body = body
    return case


def _mended_message(message: dict[str, Any]) -> dict[str, Any]:
    """A message that has what its role needs, and whose parts and calls of tools have what they
    need."""
    mended = message | {"content": message.get("content") or "text"}
    if isinstance(mended["content"], list):
        parts = [part for part in mended["content"] if isinstance(part, dict)]
        mended["content"] = [part | {"text": "a", "refusal": "b"} for part in parts]
    calls = [call for call in message.get("tool_calls") or () if call.get("function")]
    return mended | {"tool_calls": calls}


def _run(strategy: SearchStrategy[Case], send: Callable[[Case], None], cases: int, seed: int) -> None:
    limits = hypothesis.settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    with suppress(Unsatisfiable):  # nothing can be wrong with a request that takes nothing
        hypothesis.seed(seed)(limits(hypothesis.given(strategy)(send)))()


def _sender(outcome: Outcome, kind: str) -> Callable[[Case], None]:
    def send(case: Case) -> None:
        began = time.monotonic()
        try:
            response = case.call(timeout=CASE_S)
            took_s = time.monotonic() - began
            outcome.slowest_s = max(outcome.slowest_s, took_s)
            outcome.statuses[case.operation.label, kind, response.status_code] += 1
            if took_s > CASE_S:
                raise TimeoutError(f"took {took_s:.1f} s")
            case.validate_response(response, checks=CHECKS)
        except (FailureGroup, RequestException, ValueError, TimeoutError) as error:
            causes = "; ".join(map(str, getattr(error, "exceptions", (error,))))
            outcome.failures.append(f"{causes[:1500]}\n{case.as_curl_command()[:1500]}")

    return send


def main(
    *,
    cases: Annotated[int, typer.Option(min=10, help="How many, about.")] = 5000,
    seed: Annotated[int, typer.Option(help="The same cases for the same number.")] = 1,
    url: Annotated[str, typer.Option(help="A running server, instead of one of its own.")] = "",
    clients: Annotated[bool, typer.Option(help="Cases made from the types of clients.")] = False,
    bodies: Annotated[Path | None, typer.Option(help="Cases of `client_bodies`.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """Fuzz the HTTP API of a real server; about a minute for 1,000 cases."""
    if clients or bodies is not None:
        drawn = _drawn(cases, seed) if bodies is None else _stored(bodies, cases)
        with nullcontext(url) if url else serving(RECIPE) as base:
            found = asyncio.run(_sent(base, drawn, seed))
        for failure in found.failures[:SHOWN]:
            print(failure, end="\n\n")
        title = f"{found.cases} cases made from clients' types, {found.requests} requests"
        report(title, _rows(found.statuses), _limits(found.failures, found.slowest_s), json)
        return
    with nullcontext(url) if url else serving(RECIPE) as base:
        outcome = fuzz(schemathesis.openapi.from_url(f"{base}/openapi.json"), cases, seed)
    for failure in outcome.failures[:SHOWN]:
        print(failure, end="\n\n")
    title = f"{outcome.cases} cases made from the OpenAPI description"
    report(title, _rows(outcome.statuses), _limits(outcome.failures, outcome.slowest_s), json)


def _drawn(cases: int, seed: int) -> Iterator[client_fuzz.Case]:
    return client_bodies.cases(client_bodies.Bodies(seed, (RECIPE.name, *RECIPE.models)), cases)


def _stored(bodies: Path, cases: int) -> Iterator[client_fuzz.Case]:
    with bodies.open(encoding="utf-8") as lines:
        for line in islice(lines, cases):
            path, kind, body = jsonlib.loads(line)
            yield path, kind, body


async def _sent(url: str, drawn: Iterator[client_fuzz.Case], seed: int) -> client_fuzz.Found:
    async with client_fuzz.over_http(url) as send:
        return await client_fuzz.fuzz(drawn, send, seed, at_once=AT_ONCE, faulty=True)


def _rows(statuses: Counter[tuple[str, str, int]]) -> list[dict[str, Any]]:
    return [
        {"request": label, "kind": kind, "status": status, "cases": count}
        for (label, kind, status), count in sorted(statuses.items())
    ]


def _limits(failures: list[str], slowest_s: float) -> list[Limit]:
    return [
        Limit("failed cases", len(failures), 0),
        Limit("seconds of a case, max", slowest_s, CASE_S),
    ]


if __name__ == "__main__":
    run(main)
