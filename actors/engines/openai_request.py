"""What `openai_http` asks a server, and what it has learned about what the server takes.

A body has only what the recipe or the request says, and what our own work needs: a stream, its token
counts, and a limit of tokens. Some servers refuse even those. `Habits` holds what a server has refused
and how it is asked since.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from actors.engine import Message
from actors.engines.openai_errors import Fault
from actors.text.turns import Form, other_form
from configs.schema import OpenAIHttpModel, Sampling
from configs.tool_use import ToolUse

LIMITS = ("max_tokens", "max_completion_tokens")
"""The names under which servers limit the tokens of an answer."""
ANY_FORM = Form()
FORMS = frozenset({"structure", "tool_use"})
"""Parameters that have another name and form in OpenAI's API."""
SENT_UNASKED = {"stream_options": r"stream_options|include_usage", "seed": r"seed"}
"""What is sent though neither recipe nor request may have asked for it, and how errors name it. A
mixture gives each sample of a model its own seed."""
NEUTRAL = {"temperature": 1, "top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": 1}
"""Values that say the same as no value. Some servers refuse a parameter whatever its value."""
UNKNOWN = re.compile(
    r"unknown|unrecogni[sz]ed|unsupported|not (be )?support|unexpected|not (allowed|permitted|valid)"
    r"|extra|forbidden|invalid (field|parameter|argument|key)|does not exist|no such|cannot find",
    re.IGNORECASE,
)
"""Words by which an error shows that a server does not know a parameter."""
REFUSING = frozenset({400, 404, 405, 413, 422, 500, 501, 502})
"""Statuses with which servers refuse a parameter, or a conversation that the chat template refuses."""


@dataclass(frozen=True, slots=True)
class Habits:
    """How a server has to be asked."""

    form: Form = ANY_FORM
    """The form of a conversation that its chat template takes."""
    left_out: frozenset[str] = frozenset()
    """Parameters of SENT_UNASKED that it refuses, and those of NEUTRAL that it refuses even then."""
    limit: str | None = None
    """Its name for the limit of tokens, if it is not the recipe's."""

    def __or__(self, other: "Habits") -> "Habits":
        """What both have learned."""
        return Habits(self.form | other.form, self.left_out | other.left_out, self.limit or other.limit)

    def after(self, fault: Fault, body: dict[str, Any], messages: Sequence[Message]) -> "Habits | None":
        """The habits with which a refused call may succeed; None if the call has to fail.

        1. The server refuses a parameter that nobody asked for, or that says nothing: the call goes
           without the parameter.
        2. The server wants the limit of tokens under its other name.
        3. The chat template refuses the conversation as it is: the conversation goes in another form.

        Args:
            fault: the refusal.
            body: the refused body.
            messages: the conversation, before any rewriting.
        """
        if fault.status not in REFUSING:
            return None
        if (name := _needless(fault.whole, body)) is not None:  # 1
            return replace(self, left_out=self.left_out | {name})
        if self.limit is None and (limit := _other_limit(fault.whole, body)) is not None:  # 2
            return replace(self, limit=limit)
        form = other_form(fault.words, self.form, messages)  # 3
        return None if form is None else replace(self, form=form)


NOTHING_LEARNED = Habits()


def _names(error: str, pattern: str) -> bool:
    return re.search(rf"\b({pattern})\b", error) is not None


def _needless(error: str, body: dict[str, Any]) -> str | None:
    """The parameter that an error names and that the call does not need; None if there is none."""
    for name, pattern in SENT_UNASKED.items():
        is_unknown = name == "stream_options" or UNKNOWN.search(error) is not None
        if name in body and is_unknown and _names(error, pattern):
            return name
    for name, value in NEUTRAL.items():
        if body.get(name) == value and _names(error, name):
            return name
    return None


def _other_limit(error: str, body: dict[str, Any]) -> str | None:
    """The other name of the limit of tokens, if an error asks for it."""
    for sent, other in (LIMITS, LIMITS[::-1]):
        if sent in body and _names(error, sent):
            is_unknown = sent == LIMITS[1] and UNKNOWN.search(error) is not None
            if is_unknown or _names(error, other):
                return other
    return None


def request_body(
    model: OpenAIHttpModel,
    messages: Sequence[Message],
    sampling: Sampling,
    habits: Habits = NOTHING_LEARNED,
) -> dict[str, Any]:
    """The JSON body of a call to the server.

    Args:
        messages: the conversation, before it takes the form of `habits`.
    """
    body: dict[str, Any] = {
        "model": model.model,
        "messages": list(habits.form.apply(messages)),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    body |= sampling_fields(habits.limit or model.output_limit, sampling)
    if template := model.template | sampling.template:
        body["chat_template_kwargs"] = template
    if sampling.reasoning_effort is not None:
        body["reasoning_effort"] = sampling.reasoning_effort
    if model.thinking_limit is not None and sampling.thinking_tokens is not None:
        body[model.thinking_limit] = sampling.thinking_tokens
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
    body |= model.extra_body
    return {name: value for name, value in body.items() if not _is_left_out(name, value, model, habits)}


def _is_left_out(name: str, value: Any, model: OpenAIHttpModel, habits: Habits) -> bool:
    if name in habits.left_out:
        return name in SENT_UNASKED or value == NEUTRAL.get(name)
    return name in model.omit


def sampling_fields(limit: str, sampling: Sampling) -> dict[str, Any]:
    """The fields of the body by which tokens are drawn. A value that neither recipe nor request says is
    left out: some servers refuse the field, and all have defaults of their own.

    Args:
        limit: the server's name for the limit of tokens.
    """
    body: dict[str, Any] = {}
    for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed"):
        if (value := getattr(sampling, name)) is not None:
            body[name] = value
    for name in ("presence_penalty", "frequency_penalty"):
        if penalty := getattr(sampling, name):  # some servers refuse the fields, even with 0
            body[name] = penalty
    body |= {name: value for name, value in sampling.extra.items() if name not in FORMS}
    if (structure := sampling.extra.get("structure")) is not None:
        body["response_format"] = _response_format(structure)
    if (use := sampling.extra.get("tool_use")) is not None:
        body |= _tools(ToolUse.model_validate(use))
    if sampling.max_tokens is not None:
        body[limit] = sampling.most_tokens
    return body


def _response_format(structure: dict[str, Any]) -> dict[str, Any]:
    """The form of an answer in OpenAI's words."""
    if (schema := structure.get("json_schema")) is None:
        return {"type": "json_object"}
    strict = {"strict": structure["strict"]} if "strict" in structure else {}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, **strict}}


def _tools(use: ToolUse) -> dict[str, Any]:
    """The tools in OpenAI's words. What says the same as no parameter is left out."""
    functions = [tool.model_dump(exclude_defaults=True) for tool in use.tools]
    for function, tool in zip(functions, use.tools, strict=True):
        function["parameters"] = tool.schema_of_arguments
    body: dict[str, Any] = {"tools": [{"type": "function", "function": each} for each in functions]}
    if use.choice == "required":
        one = {"type": "function", "function": {"name": use.names[0]}}
        body["tool_choice"] = one if len(use.tools) == 1 else "required"
    # A tool that has to be called alone is called once anyway, and some servers lack the parameter.
    if not use.parallel and (use.choice == "auto" or len(use.tools) > 1):
        body["parallel_tool_calls"] = False
    return body


def advice(fault: Fault, body: dict[str, Any]) -> str:
    """What helps against the refusal of a parameter that was asked for; "" if nothing is known."""
    if not UNKNOWN.search(fault.whole):
        return ""
    kept = {"model", "messages", "stream"}
    named = [n for n in body if n not in kept and re.search(rf"\b{re.escape(n)}\b", fault.whole)]
    return f"; `omit: [{', '.join(named)}]` for the model sends no such parameter" if named else ""
