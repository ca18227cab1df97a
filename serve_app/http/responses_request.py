"""POST /v1/responses: a request of OpenAI's Responses API -> the same request as a chat completion.

1. `instructions` and `input` are the conversation: messages, calls of tools with their results, and
   earlier reasoning and what another server looked up, which are not shown to the models.
2. Parameters with another name, or in an object, get the name that chat completions have for them.
3. STATEFUL parameters need answers that a server has kept. This server keeps none, so they are refused.
4. IGNORED parameters change nothing here.
5. All others are those of chat completions (`request.py`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from configs.errors import BadRequest
from serve_app.http.json_body import read_object
from serve_app.http.request import ChatRequest, parse_fields

IGNORED = frozenset(
    {
        "access_programs",
        "background_options",
        "client_metadata",
        "context_management",
        "image",
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
SILENT = frozenset(
    {
        "additional_tools",
        "code_interpreter_call",
        "file_search_call",
        "image_generation_call",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_list_tools",
        "tool_search_call",
        "tool_search_output",
        "web_search_call",
    }
)
"""Items that say what another server did before its answer, which is an item of its own. The models are
not shown them; `moa.ignored` names them."""
CALLS = frozenset({"apply_patch_call", "local_shell_call", "mcp_call", "shell_call"})
"""Calls of OpenAI's own tools, which are read as calls of tools by these names."""
BOOKKEEPING = frozenset({"call_id", "caller", "created_by", "environment", "id", "status", "type"})
"""Fields of such a call that are no arguments."""
OUTPUTS = frozenset({"apply_patch_call_output", "local_shell_call_output", "shell_call_output"})
"""The results of such calls."""


@dataclass(frozen=True)
class ResponsesRequest:
    """A request, read."""

    chat: ChatRequest
    """The same request as a chat completion."""
    fields: dict[str, Any]
    """The request as it was sent, to repeat its parameters in the response."""
    names: dict[str, str]
    """What the client has named what a chat completion names otherwise: parameters, and each message
    (`messages.0`)."""

    def shows_proposals(self, by_recipe: bool) -> bool:
        """Whether proposals are shown as reasoning: as `moa.events` or `moa.proposals` of the request
        says, or else the recipe.

        Args:
            by_recipe: the recipe's `show_proposals`.
        """
        moa = self.chat.moa
        if "events" in moa.model_fields_set:
            return moa.events
        return by_recipe if moa.proposals is None else moa.proposals


def parse_responses(body: bytes) -> ResponsesRequest:
    """Read a request body.

    Raises:
        BadRequest: the body is no request that can be answered; the message names the field.
    """
    fields = read_object(body)
    names = dict(RENAMED)
    history = _History(names)
    fields_of_chat = _to_chat(fields, history)
    try:
        chat = parse_fields(fields_of_chat)
    except BadRequest as error:
        rename(error, names)
        raise
    chat.note_ignored(f"input.{kind}" for kind in sorted(history.silent))
    return ResponsesRequest(chat, fields, names)


def rename(error: BadRequest, names: Mapping[str, str]) -> None:
    """Have an error name its cause as the client has named it, in `param` and in the message."""
    for name in sorted(names, key=len, reverse=True):  # `messages.0` before `messages`
        if error.param == name or (error.param or "").startswith(f"{name}."):
            sent = names[name] + (error.param or "").removeprefix(name)
            error.args = (error.message.replace(str(error.param), sent, 1),)
            error.param = sent
            return


def _to_chat(fields: dict[str, Any], history: "_History") -> dict[str, Any]:
    """The fields of the same chat completion."""
    chat = {name: value for name, value in fields.items() if name not in IGNORED}  # 4
    for name in STATEFUL & chat.keys():  # 3
        raise BadRequest(f"{name!r} is not supported here: {NOT_KEPT}", param=name)
    for name, harmless in UNSUPPORTED.items():
        if json.dumps(chat.pop(name, harmless[0])) not in map(json.dumps, harmless):
            raise BadRequest(f"{name!r} is not supported here; leave it out", param=name)
    history.read(chat.pop("instructions", None), chat.pop("input", None))  # 1
    chat["messages"] = history.messages
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


class _History:
    """The messages that `instructions` and `input` become.

    Args:
        names: gets the place in the request of each message.
    """

    def __init__(self, names: dict[str, str]) -> None:
        self.messages: list[Any] = []
        self.silent: set[str] = set()
        """Types of items that were left out."""
        self._names = names

    def read(self, instructions: Any, given: Any) -> None:
        """Read both parameters.

        Raises:
            BadRequest: an item holds what models here cannot read, or names what was not kept.
        """
        self._names["messages"] = "input"
        if instructions is not None:
            if not isinstance(instructions, str):
                raise BadRequest("'instructions' has to be a text", param="instructions")
            self._put({"role": "system", "content": instructions}, "instructions")
        if isinstance(given, str):
            self._put({"role": "user", "content": given}, "input")
            return
        if given is not None and not isinstance(given, list):
            raise BadRequest("'input' has to be a text or an array", param="input")
        for n, item in enumerate(given or ()):
            self._add(item, f"input.{n}")
        if not self.messages:
            raise BadRequest("'input' has nothing that could be answered", param="input")

    def _put(self, message: dict[str, Any], where: str) -> None:
        self._names[f"messages.{len(self.messages)}"] = where
        self.messages.append(message)

    def _add(self, item: Any, where: str) -> None:
        """Add what an item of `input` says."""
        if not isinstance(item, dict):
            raise BadRequest(f"{where} has to be an object", param=where)
        kind = item.get("type", "message" if "role" in item else "item_reference")
        if kind == "message":
            self._put({name: value for name, value in item.items() if name != "type"}, where)
        elif kind == "item_reference":
            if not str(item.get("id")).startswith(REASONING_ID):
                message = f"{where}: item_reference: {NOT_KEPT}; {HOW_TO_SEND_ALL}"
                raise BadRequest(message, param=where)
        elif not isinstance(kind, str) or not self._add_tool(kind, item, where):
            message = f"{where}.type: items of the type {kind!r:.80} cannot be read here"
            raise BadRequest(message, param=f"{where}.type")

    def _add_tool(self, kind: str, item: dict[str, Any], where: str) -> bool:
        """Add what an item says of tools or of earlier reasoning. Returns whether its type is known."""
        if kind in ("function_call", "custom_tool_call"):
            names = ("name", "arguments", "input")
            self._call({name: item[name] for name in names if name in item}, item, where)
        elif kind in CALLS:
            said = {name: item[name] for name in item if name not in BOOKKEEPING}
            self._call({"name": kind.removesuffix("_call"), "arguments": said}, item, where)
        elif kind in ("function_call_output", "custom_tool_call_output") or kind in OUTPUTS:
            output = item.get("output")
            if not isinstance(output, str) and (kind in OUTPUTS or not isinstance(output, list)):
                output = json.dumps(output, ensure_ascii=False)
            call = item.get("call_id", item.get("id"))
            self._put({"role": "tool", "tool_call_id": call, "content": output}, where)
        elif kind in SILENT:
            self.silent.add(kind)
        else:
            return kind == "reasoning"
        return True

    def _call(self, function: dict[str, Any], item: dict[str, Any], where: str) -> None:
        """Add a call of a tool to the message of the assistant, or make one."""
        if not self.messages or self.messages[-1].get("role") != "assistant":
            self._put({"role": "assistant"}, where)
        calls = self.messages[-1].get("tool_calls")
        call = {"id": item.get("call_id", item.get("id")), "function": function}
        self.messages[-1]["tool_calls"] = [*(calls if isinstance(calls, list) else ()), call]
