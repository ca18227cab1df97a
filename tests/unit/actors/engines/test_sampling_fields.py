"""How each engine is told of a call's sampling."""

import json
from pathlib import Path
from typing import Any

import pytest
from xllamacpp import json_schema_to_grammar

from actors.engines.llamacpp_sampling import sampling_fields as llamacpp_fields
from actors.engines.llamacpp_schema import one_line
from actors.engines.openai_request import sampling_fields as http_fields
from actors.engines.vllm_arguments import sampling_arguments
from configs.schema import Sampling

SCHEMA = {"type": "object"}
GRAMMAR = json_schema_to_grammar(one_line(SCHEMA))
LLAMACPP = {
    "temperature": 0.7,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "max_tokens": 512,
}
VLLM = {
    "temperature": 0.7,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "max_tokens": 512,
    "stop": None,
    "seed": None,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "logprobs": None,
}
SAID = {"top_k": 20, "min_p": 0.05, "repetition_penalty": 1.1, "temperature": 0}


@pytest.mark.parametrize(
    ("sampling", "fields"),
    [
        ({}, {}),
        (SAID, {"top_k": 20, "min_p": 0.05, "repeat_penalty": 1.1, "temperature": 0}),
        ({"top_k": -1}, {}),
        ({"stop": ["a"], "seed": -1}, {"stop": ["a"], "seed": 2**32 - 2}),
        ({"max_tokens": 3, "thinking_tokens": 4}, {"max_tokens": 7}),
        (
            {"extra": {"dry_multiplier": 0.8, "ignore_eos": True}},
            {"dry_multiplier": 0.8, "ignore_eos": True},
        ),
        ({"extra": {"structure": {"json_object": True}}}, {"grammar": GRAMMAR}),
        ({"extra": {"structure": {"json_schema": SCHEMA}}}, {"grammar": GRAMMAR}),
        ({"extra": {"structure": {"grammar": "root ::= [0-9]"}}}, {"grammar": "root ::= [0-9]"}),
        (
            {"extra": {"structure": {"choice": ['a"b', "c\\d\n", "é"]}}},
            {"grammar": 'root ::= "a\\"b" | "c\\\\d\\x0A" | "é"'},
        ),
    ],
    ids=str,
)
def test_llamacpp_is_sent_every_value_for_its_defaults_are_others(
    sampling: dict[str, Any], fields: dict[str, Any]
) -> None:
    assert llamacpp_fields(Sampling.model_validate(sampling)) == LLAMACPP | fields


@pytest.mark.parametrize(
    ("sampling", "arguments"),
    [
        ({}, {}),
        (SAID, SAID),
        ({"extra": {"min_tokens": 9}, "max_tokens": 5}, {"min_tokens": 5, "max_tokens": 5}),
        ({"extra": {"logit_bias": {"7": -100.0}}}, {"logit_bias": {7: -100.0}}),
        (
            {"extra": {"stop_token_ids": [1], "bad_words": ["x"]}},
            {"stop_token_ids": [1], "bad_words": ["x"]},
        ),
        ({"extra": {"structure": {"json_schema": SCHEMA}}}, {"structured_outputs": {"json": SCHEMA}}),
        ({"extra": {"structure": {"choice": ["a"]}}}, {"structured_outputs": {"choice": ["a"]}}),
    ],
    ids=str,
)
def test_vllm_gets_arguments_of_its_sampling_params(
    sampling: dict[str, Any], arguments: dict[str, Any]
) -> None:
    assert sampling_arguments(Sampling.model_validate(sampling)) == VLLM | arguments


@pytest.mark.parametrize(
    ("sampling", "fields"),
    [
        ({}, {}),
        (SAID, SAID),
        ({"base": "checkpoint"}, {}),
        ({"max_tokens": 9}, {"limit": 9}),
        ({"extra": {"min_tokens": 4, "typical_p": 0.9}}, {"min_tokens": 4, "typical_p": 0.9}),
        (
            {"extra": {"structure": {"json_object": True}}},
            {"response_format": {"type": "json_object"}},
        ),
        (
            {"extra": {"structure": {"json_schema": SCHEMA}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": SCHEMA},
                }
            },
        ),
    ],
    ids=str,
)
def test_a_server_is_sent_what_is_said_and_nothing_else(
    sampling: dict[str, Any], fields: dict[str, Any]
) -> None:
    assert http_fields("limit", Sampling.model_validate(sampling)) == fields


async def test_a_scripted_model_notes_the_sampling_that_holds(tmp_path: Path) -> None:
    from actors.engines.scripted import ScriptedEngine
    from configs.schema import ScriptedModel

    journal = tmp_path / "calls.jsonl"
    settings = ScriptedModel(engine="scripted", first_token_s=0, token_s=0, journal=str(journal))
    engine = ScriptedEngine("m", settings)
    await engine.start()
    async for _ in engine.stream([{"role": "user", "content": "hi"}], Sampling(top_k=3, min_p=0.2)):
        pass
    asked = json.loads(journal.read_text("utf-8"))["sampling"]
    assert (asked["temperature"], asked["top_k"], asked["min_p"]) == (0.7, 3, 0.2)
