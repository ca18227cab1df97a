"""Calls of tools -> the fields of OpenAI's messages and chunks, in the newer and in the older form."""

from collections.abc import Sequence
from typing import Any

from actors.engine import CallDelta


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
