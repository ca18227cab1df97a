"""Calls of tools -> the fields of OpenAI's messages, chunks and items, in newer and older form."""

import uuid
from collections.abc import Sequence
from typing import Any

from actors.engine import CallDelta
from configs.tool_use import ToolUse


def joined(pieces: Sequence[CallDelta]) -> list[CallDelta]:
    """The whole calls, in their order, from their pieces."""
    calls: dict[int, CallDelta] = {}
    arguments: dict[int, list[str]] = {}
    for piece in pieces:
        calls.setdefault(piece.index, piece)
        arguments.setdefault(piece.index, []).append(piece.arguments)
    return [
        CallDelta(index, call.id, call.name, "".join(arguments[index])) for index, call in calls.items()
    ]


def whole_calls(pieces: Sequence[CallDelta], *, older: bool) -> dict[str, Any]:
    """The fields of a message with calls.

    Args:
        pieces: the pieces of all calls.
        older: whether the client reads `function_call`, which is the first call alone.
    """
    calls = joined(pieces)
    if older:
        return {"function_call": {"name": calls[0].name, "arguments": calls[0].arguments}}
    return {
        "tool_calls": [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in calls
        ]
    }


def call_piece(piece: CallDelta, *, older: bool) -> dict[str, Any]:
    """The `delta` of a chunk with a piece of a call."""
    function = {"arguments": piece.arguments}
    if piece.name:
        function = {"name": piece.name, **function}
    if older:
        return {"function_call": function}
    head: dict[str, Any] = {"index": piece.index}
    if piece.id:
        head |= {"id": piece.id, "type": "function"}
    return {"tool_calls": [{**head, "function": function}]}


def new_item_id() -> str:
    """A new ID of an item that is a call."""
    return f"fc_{uuid.uuid4().hex}"


def call_item(item: str, call: CallDelta, status: str) -> dict[str, Any]:
    """The item of the Responses API that is a call.

    Args:
        item: the ID of the item.
        call: the call.
        status: `in_progress`, `completed` or `incomplete`.
    """
    return {
        "id": item,
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "status": status,
    }


def tool_fields(use: ToolUse | None, *, is_off: bool) -> dict[str, Any]:
    """What the response repeats of tools: those that the answer may call."""
    if use is None:
        choice = "none" if is_off else "auto"
        return {"parallel_tool_calls": True, "tool_choice": choice, "tools": []}
    named = {"type": "function", "name": use.names[0]}
    is_named = use.choice == "required" and len(use.tools) == 1
    tools = [
        {"type": "function", "strict": True, **tool.model_dump(exclude_none=True)} for tool in use.tools
    ]
    return {
        "parallel_tool_calls": use.parallel,
        "tool_choice": named if is_named else use.choice,
        "tools": tools,
    }
