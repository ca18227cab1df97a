"""The names and forms that other servers have for parameters of a request, turned into ours.

Sources, as of November 2026: llama.cpp (tools/server/README.md), Ollama (docs/api.md),
text-generation-inference, Mistral, Anthropic's and DeepSeek's thinking, OpenRouter's reasoning,
DashScope, SGLang, LM Studio.
"""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from configs.errors import BadRequest

RENAMED = {
    "max_gen_len": "max_tokens",
    "max_new_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "max_tokens_to_sample": "max_tokens",
    "n_predict": "max_tokens",
    "num_predict": "max_tokens",
    "tokens_to_generate": "max_tokens",
    "min_new_tokens": "min_tokens",
    "random_seed": "seed",
    "rep_pen": "repetition_penalty",
    "repeat_penalty": "repetition_penalty",
    "stop_sequence": "stop",
    "stop_sequences": "stop",
    "stopping_strings": "stop",
    "temp": "temperature",
    "typical": "typical_p",
    "reasoning_budget": "thinking_token_budget",
    "reasoning_budget_tokens": "thinking_token_budget",
    "thinking_budget": "thinking_token_budget",
    "thinking_budget_tokens": "thinking_token_budget",
}
"""Our names of parameters by the names of other servers. Our name wins where a request has both."""
UNLIMITED = (-1, -2)
"""Numbers by which llama.cpp, LM Studio and Ollama mean no limit of tokens."""
FORMATS = ("text", "json_object", "json_schema", "json")
"""Types of `response_format`; `json` is that of text-generation-inference."""
NO_EFFORT = ("auto", "default")
"""Values of `reasoning_effort` by which clients leave the choice to the model."""


class Translated(dict[str, Any]):
    """A request's fields under our names and in our forms, and how the client has named them."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.sent: dict[str, str] = {}
        """Names that the client has used, by our name."""
        self.left_out: list[str] = []
        """Names of what was left out, for `moa.ignored`."""
        self.older_calls = False
        """Whether the client reads a call of a tool in the older form (`function_call`)."""

    def put(self, name: str, value: Any, sent: str) -> None:
        """Set one of our fields, unless the request says it under our name, or under an earlier one."""
        if name not in self:
            self[name] = value
            self.sent[name] = sent


Reader = Callable[[Translated, str, Any], None]
"""Takes one field, by its name and value, into the others."""


def with_our_names(given: Mapping[str, Any]) -> Translated:
    """A request's fields under our names and in our forms. Fields that nobody renames stay.

    Raises:
        BadRequest: a form is none of those that the other server has; the message names the field.
    """
    fields = Translated(given)
    _flatten(fields)
    for name, our in RENAMED.items():
        if name in fields:
            value = fields.pop(name)
            if our != "thinking_token_budget" or not _is_one_of(value, UNLIMITED):
                fields.put(our, value, name)
    for name, read in READERS.items():
        if name in fields:
            read(fields, name, fields.pop(name))
    if _is_one_of(fields.get("max_tokens"), UNLIMITED):
        del fields["max_tokens"]
    if _is_one_of(fields.get("seed"), (-1,)):  # llama.cpp, Ollama, LM Studio and vLLM draw one then
        del fields["seed"]
    if _is_one_of(fields.get("reasoning_effort"), NO_EFFORT):
        del fields["reasoning_effort"]
    return fields


def _is_one_of(value: Any, values: Collection[Any]) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool) and value in values


def _flatten(fields: Translated) -> None:
    """Take Ollama's `options`, and the `extra_body` of a client that has not unpacked it."""
    for name in ("options", "extra_body"):
        if isinstance(fields.get(name), dict):
            for inner, value in fields.pop(name).items():
                fields.put(inner, value, f"{name}.{inner}")


def _set_thinking(fields: Translated, sent: str, *, thinks: bool) -> None:
    """Say to the chat template whether to think, unless the request says so in its own words."""
    if "reasoning_effort" in fields:
        return
    given = fields.get("chat_template_kwargs", {})
    if isinstance(given, dict):
        switches = {"enable_thinking": thinks, "thinking": thinks}
        fields["chat_template_kwargs"] = switches | given
        fields.sent.setdefault("chat_template_kwargs", sent)


def _read_switch(fields: Translated, name: str, value: Any) -> None:
    """A switch that is true, false or an effort, as Ollama's `think` is."""
    if isinstance(value, bool):
        _set_thinking(fields, name, thinks=value)
    elif isinstance(value, str):
        fields.put("reasoning_effort", value, name)
    else:
        raise _wrong(name, "true, false or an effort", value)


def _read_thinking(fields: Translated, name: str, value: Any) -> None:
    """Anthropic's, DeepSeek's and GLM's `thinking`."""
    if not isinstance(value, dict):
        _read_switch(fields, name, value)
        return
    kind = value.get("type")
    if not _is_one_of(kind, ("enabled", "disabled", "adaptive", "auto")):
        raise _wrong(f"{name}.type", '"enabled" or "disabled"', kind)
    if kind != "auto":
        _set_thinking(fields, name, thinks=kind != "disabled")
    if kind != "disabled" and "budget_tokens" in value:
        fields.put("thinking_token_budget", value["budget_tokens"], f"{name}.budget_tokens")


def _read_reasoning(fields: Translated, name: str, value: Any) -> None:
    """OpenRouter's and Ollama's `reasoning`."""
    if not isinstance(value, dict):
        _read_switch(fields, name, value)
        return
    if "effort" in value:
        fields.put("reasoning_effort", value["effort"], f"{name}.effort")
    if "max_tokens" in value:
        fields.put("thinking_token_budget", value["max_tokens"], f"{name}.max_tokens")
    if isinstance(value.get("enabled"), bool):
        _set_thinking(fields, name, thinks=value["enabled"])
    _set_shown(fields, shows=value.get("exclude") is not True)


def _read_include_reasoning(fields: Translated, name: str, value: Any) -> None:
    """OpenRouter's and vLLM's `include_reasoning`."""
    if not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    _set_shown(fields, shows=value)


def _set_shown(fields: Translated, *, shows: bool) -> None:
    """Whether the answer has its reasoning. Clients that ask in OpenRouter's words read it in the field
    `reasoning`, as vLLM's newer ones do."""
    given = fields.get("moa", {})
    if isinstance(given, dict):
        fields["moa"] = {"reasoning": "reasoning" if shows else False} | given


def _read_disabled(fields: Translated, name: str, value: Any) -> None:
    """Cerebras' `disable_reasoning`."""
    if not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    _set_thinking(fields, name, thinks=not value)


def _read_do_sample(fields: Translated, name: str, value: Any) -> None:
    """Hugging Face's `do_sample`: without sampling, the likeliest token is taken."""
    if value is False:
        fields.put("temperature", 0, name)


def _structure(kind: str) -> Reader:
    """A reader of a parameter that gives the form of an answer in one way."""

    def read(fields: Translated, name: str, value: Any) -> None:
        if value not in ("", {}, []):
            fields.put("structure", {kind: _parsed(value) if kind == "json_schema" else value}, name)

    return read


def _read_format(fields: Translated, name: str, value: Any) -> None:
    """Ollama's `format`: the word `json`, or a JSON schema."""
    if value != "":
        fields.put(
            "structure", {"json_object": True} if value == "json" else {"json_schema": value}, name
        )


def _read_response_format(fields: Translated, name: str, value: Any) -> None:
    """Read `response_format`. OpenAI has the schema in `json_schema.schema`, llama.cpp also in `schema`
    beside the type, and text-generation-inference in `value`."""
    kind = value.get("type") if isinstance(value, dict) else None
    if not _is_one_of(kind, FORMATS):
        allowed = f"an object whose type is {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        message = f"{name!r} is not supported here; leave it out or send {allowed}, not {value!r:.80}"
        raise BadRequest(message, param=name)
    if kind == "text":
        return
    inner = value.get("json_schema")
    inner = inner if isinstance(inner, dict) else {}
    found = (inner.get("schema"), value.get("schema"), value.get("value"))
    schema = next((each for each in found if each is not None), None)
    if schema is not None:
        strict = inner.get("strict", value.get("strict"))
        given = {"strict": strict} if isinstance(strict, bool) else {}
        fields.put("structure", {"json_schema": _parsed(schema)} | given, name)
    elif kind == "json_schema":
        where = f"{name}.json_schema.schema"
        raise BadRequest(f"{where} is missing: the JSON schema of the answer", param=where)
    else:
        fields.put("structure", {"json_object": True}, name)


def _read_structured(fields: Translated, name: str, value: Any) -> None:
    """vLLM's `structured_outputs`."""
    kinds = ("json", "json_object", "regex", "choice", "grammar")
    structure = {k: value[k] for k in kinds if k in value} if isinstance(value, dict) else {}
    if structure.get("json_object") is False:
        del structure["json_object"]
    if not structure:
        raise _wrong(name, "an object with json, regex, choice or grammar", value)
    if "json" in structure:
        structure["json_schema"] = _parsed(structure.pop("json"))
    fields.put("structure", structure, name)


def _parsed(schema: Any) -> Any:
    """A JSON schema, which some clients send as a text."""
    if not isinstance(schema, str):
        return schema
    try:
        return json.loads(schema)
    except ValueError:
        return schema


def _wrong(name: str, allowed: str, value: Any) -> BadRequest:
    return BadRequest(f"{name} has to be {allowed}, not {value!r:.80}", param=name)


READERS: dict[str, Reader] = {
    "think": _read_switch,
    "enable_thinking": _read_switch,
    "thinking": _read_thinking,
    "reasoning": _read_reasoning,
    "include_reasoning": _read_include_reasoning,
    "disable_reasoning": _read_disabled,
    "do_sample": _read_do_sample,
    "response_format": _read_response_format,
    "structured_outputs": _read_structured,
    "json_schema": _structure("json_schema"),
    "guided_json": _structure("json_schema"),
    "regex": _structure("regex"),
    "guided_regex": _structure("regex"),
    "guided_choice": _structure("choice"),
    "grammar": _structure("grammar"),
    "guided_grammar": _structure("grammar"),
    "ebnf": _structure("grammar"),
    "format": _read_format,
}
"""What to do with parameters of other servers whose values have another form than ours."""
