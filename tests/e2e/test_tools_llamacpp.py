"""Calls of tools and objects of real weights: llama.cpp holds the model to their form."""

import asyncio
import json
from typing import Any

import jsonschema
import pytest

from actors.engine import Message, Share
from actors.engines.llamacpp import LlamaCppEngine
from actors.text.tool_prompt import with_tools
from actors.text.tool_reader import with_calls
from configs.load import load
from configs.schema import LlamaCppModel, Sampling
from configs.tool_use import ToolUse

pytestmark = pytest.mark.weights

TOWN = {"type": "object", "properties": {"town": {"$ref": "#/$defs/Town"}}, "required": ["town"]}
WEATHER = {
    "name": "weather",
    "description": "Get the weather of a town",
    "parameters": TOWN | {"additionalProperties": False, "$defs": {"Town": {"type": "string"}}},
}
TEXT = {"type": "string", "maxLength": 12}
PLACE = {
    "type": "object",
    "properties": {
        "town": TEXT,
        "country": {"enum": ["AT", "FR"]},
        "floor": {"type": "integer", "minimum": -2, "maximum": 60},
    },
    "required": ["town", "country"],
    "additionalProperties": False,
}
KINDS: tuple[dict[str, Any], ...] = (
    TEXT,
    {"type": "integer", "minimum": 0, "maximum": 99},
    {"type": "boolean"},
    {"enum": ["low", "high"]},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5},
    {"type": "array", "items": {"enum": ["cold", "big"]}, "minItems": 1, "maxItems": 2},
    {"$ref": "#/$defs/Place"},
    {"type": ["string", "null"], "pattern": "^[A-Z]{2}-[0-9]{4}$"},
    {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 5}, {"type": "null"}]},
    {"type": "string", "format": "date"},
)
FIELDS = {f"field_{n}": KINDS[n % len(KINDS)] for n in range(20)}
FORM: dict[str, Any] = {
    "type": "object",
    "properties": FIELDS,
    "required": list(FIELDS)[:16],
    "additionalProperties": False,
    "$defs": {"Place": PLACE},
}
QUESTION: list[Message] = [{"role": "user", "content": "What is the weather in Paris?"}]


async def asked(engine: LlamaCppEngine, use: ToolUse) -> tuple[str, list[Any], str | None]:
    messages = with_tools(QUESTION, use, has_references=False)
    extra = {"tool_use": use.model_dump()}
    sampling = Sampling(temperature=1, seed=3, max_tokens=60, extra=extra)
    deltas = [d async for d in with_calls(engine.stream(messages, sampling), use, may_be_bare=True)]
    calls: list[Any] = []
    for piece in (piece for delta in deltas for piece in delta.tool_calls):
        if piece.name:
            calls.append([piece.name, ""])
        calls[-1][1] += piece.arguments
    finish = next((d.finish_reason for d in reversed(deltas) if d.finish_reason), None)
    return "".join(d.text for d in deltas), calls, finish


async def test_smollm_calls_what_it_has_to_and_fills_20_fields() -> None:
    model = load("tiny_cpu").models["smollm2-135m"]
    assert isinstance(model, LlamaCppModel)
    engine = LlamaCppEngine("smollm", model, Share(threads=2))
    await engine.start()
    try:
        clock = {"name": "clock", "parameters": {}}
        one = ToolUse.model_validate(
            {"tools": [WEATHER, clock], "choice": "required", "parallel": False}
        )
        text, calls, finish = await asked(engine, one)
        assert (text, len(calls)) == ("", 1)
        assert finish in ("tool_calls", "length")
        if finish == "tool_calls":
            assert set(json.loads(calls[0][1])) == ({"town"} if calls[0][0] == "weather" else set())
        free = ToolUse.model_validate({"tools": [WEATHER]})
        text, calls, _ = await asked(engine, free)
        assert text or calls
        assert "<call_tool>" not in text
        shaped = Sampling(
            temperature=1, seed=1, max_tokens=500, extra={"structure": {"json_schema": FORM}}
        )
        both = await asyncio.gather(*(_whole(engine, shaped, seed) for seed in range(2)))
        for written in both:
            jsonschema.validate(json.loads(written), FORM)
    finally:
        await engine.stop()


async def _whole(engine: LlamaCppEngine, sampling: Sampling, seed: int) -> str:
    seeded = sampling.model_copy(update={"seed": seed})
    ask: list[Message] = [{"role": "user", "content": "Fill in the form."}]
    return "".join([delta.text async for delta in engine.stream(ask, seeded)])
