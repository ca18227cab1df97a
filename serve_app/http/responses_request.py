"""POST /v1/responses: a request of OpenAI's Responses API -> the same request as a chat completion.

1. `instructions` and `input` are the conversation: messages, calls of tools with their results, and
   earlier reasoning, which is not shown to the models.
2. Parameters with another name, or in an object, get the name that chat completions have for them.
3. STATEFUL parameters need answers that a server has kept. This server keeps none, so they are refused.
4. IGNORED parameters change nothing here.
5. All others are those of chat completions (`request.py`).
"""

import json
from dataclasses import dataclass
from typing import Any

from configs.errors import BadRequest
from serve_app.http.json_body import read_object
from serve_app.http.request import ChatRequest, parse_fields

IGNORED = frozenset(
    {
        "background_options",
        "client_metadata",
        "context_management",
        "include",
        "max_tool_calls",
        "store",
        "stream_options",
        "truncation",
    }
)
"""Parameters that chat completions do not have, and that change nothing here."""
STATEFUL = frozenset({"conversation", "previous_response_id", "prompt"})
"""Parameters that name something which the server would have to have kept."""
NOT_KEPT = "this server keeps no responses: send the whole conversation in `input`"
HOW_TO_SEND_ALL = "clients that send references send the whole texts once you set `store` to false"
REASONING_ID = "rs_"
"""How IDs of reasoning begin. A reference to reasoning needs nothing that was kept, because models do
not see earlier reasoning."""
UNSUPPORTED: dict[str, tuple[Any, ...]] = {"background": (False,), "top_logprobs": (0,)}
"""Parameters of features that are not here, with the values that do not need the feature."""
RENAMED = {
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
}
"""Parameters of chat completions, by which an error names its cause, and what they are called here."""


@dataclass(frozen=True)
class ResponsesRequest:
    """A request, read."""

    chat: ChatRequest
    """The same request as a chat completion."""
    fields: dict[str, Any]
    """The request as it was sent, to repeat its parameters in the response."""

    @property
    def shows_proposals(self) -> bool:
        """Whether proposals are shown as reasoning: unless the request says `moa.events: false`."""
        moa = self.fields.get("moa")
        return not isinstance(moa, dict) or moa.get("events") is not False


def parse_responses(body: bytes) -> ResponsesRequest:
    """Read a request body.

    Raises:
        BadRequest: the body is no request that can be answered; the message names the field.
    """
    fields = read_object(body)
    return ResponsesRequest(parse_fields(_to_chat(fields)), fields)


def sent_name(param: str | None) -> str | None:
    """What a parameter of chat completions, which an error names, is called in the Responses API."""
    if param is None or param.startswith("messages"):
        return param and "input"
    return RENAMED.get(param, param)


def as_sent(error: BadRequest) -> BadRequest:
    """The refusal of a chat completion in the names that its parameters have in the Responses API."""
    renamed, words = sent_name(error.param), error.message
    if renamed is not None and words.startswith(f"{error.param!r} "):
        words = words.replace(repr(error.param), repr(renamed), 1)
    if type(error) is BadRequest:
        return BadRequest(words, param=renamed, model=error.model)
    error.param = renamed
    return error


def _to_chat(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of the same chat completion."""
    chat = {name: value for name, value in fields.items() if name not in IGNORED}  # 4
    for name in STATEFUL & chat.keys():  # 3
        raise BadRequest(f"{name!r} is not supported here: {NOT_KEPT}", param=name)
    for name, harmless in UNSUPPORTED.items():
        if json.dumps(chat.pop(name, harmless[0])) not in map(json.dumps, harmless):
            raise BadRequest(f"{name!r} is not supported here; leave it out", param=name)
    chat["messages"] = _messages(chat.pop("instructions", None), chat.pop("input", None))  # 1
    if (limit := chat.pop("max_output_tokens", None)) is not None:  # 2
        chat["max_completion_tokens"] = limit
    reasoning, text = _object(chat, "reasoning"), _object(chat, "text")
    if "effort" in reasoning:
        chat["reasoning_effort"] = reasoning["effort"]
    if "format" in text:
        chat["response_format"] = text["format"]
    if "verbosity" in text:
        chat["verbosity"] = text["verbosity"]
    return chat


def _object(chat: dict[str, Any], name: str) -> dict[str, Any]:
    value = chat.pop(name, {})
    if not isinstance(value, dict):
        raise BadRequest(f"{name!r} has to be an object", param=name)
    return value


def _messages(instructions: Any, given: Any) -> list[Any]:
    messages: list[Any] = []
    if instructions is not None:
        if not isinstance(instructions, str):
            raise BadRequest("'instructions' has to be a text", param="instructions")
        messages.append({"role": "system", "content": instructions})
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    if given is not None and not isinstance(given, list):
        raise BadRequest("'input' has to be a text or an array", param="input")
    for n, item in enumerate(given or ()):
        _add(messages, item, f"input.{n}")
    return messages


def _add(messages: list[Any], item: Any, where: str) -> None:
    """Add what an item of `input` says to the messages.

    Raises:
        BadRequest: the item holds what models here cannot read, or names what was not kept.
    """
    if not isinstance(item, dict):
        raise BadRequest(f"{where} has to be an object", param=where)
    kind = item.get("type", "message" if "role" in item else "item_reference")
    match kind:
        case "message":
            messages.append({name: value for name, value in item.items() if name != "type"})
        case "reasoning":
            pass
        case "function_call" | "custom_tool_call":
            function = {name: item[name] for name in ("name", "arguments", "input") if name in item}
            call = {"id": item.get("call_id"), "function": function}
            if not messages or messages[-1].get("role") != "assistant":
                messages.append({"role": "assistant"})
            messages[-1].setdefault("tool_calls", []).append(call)
        case "function_call_output" | "custom_tool_call_output":
            output = item.get("output")
            if not isinstance(output, str | list):
                output = json.dumps(output)
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": output})
        case "item_reference" if str(item.get("id")).startswith(REASONING_ID):
            pass
        case "item_reference":
            message = f"{where}: item_reference: {NOT_KEPT}; {HOW_TO_SEND_ALL}"
            raise BadRequest(message, param=where)
        case _:
            message = f"{where}.type: items of the type {kind!r:.80} cannot be read here"
            raise BadRequest(message, param=f"{where}.type")
