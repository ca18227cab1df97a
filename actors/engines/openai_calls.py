"""Reads the pieces of calls of tools that OpenAI-compatible servers send.

Servers differ: some send no index, some a whole call in each piece, arguments as an object, or no id.
"""

import json
import uuid
from typing import Any

from actors.engine import CallDelta


class CallsOfServer:
    """The calls of one answer, while their pieces arrive."""

    def __init__(self) -> None:
        self._places: dict[Any, int] = {}
        """Our numbers of the calls, by the server's index or id."""
        self.count = 0
        """How many calls there are."""

    def read(self, pieces: Any, older: Any) -> tuple[CallDelta, ...]:
        """What a chunk adds to the calls. What is no piece of a call is left out.

        Args:
            pieces: the `tool_calls` of the chunk.
            older: its `function_call`.
        """
        found = [self._read(piece) for piece in pieces] if isinstance(pieces, list) else []
        if isinstance(older, dict):
            found.append(self._read({"index": "function_call", "function": older}))
        return tuple(call for call in found if call is not None)

    def _read(self, piece: Any) -> CallDelta | None:
        function = piece.get("function") if isinstance(piece, dict) else None
        if not isinstance(function, dict):
            return None
        name, given = function.get("name"), function.get("arguments")
        name = name if isinstance(name, str) else ""
        arguments = given if isinstance(given, str) else json.dumps(given) if given else ""
        said = piece.get("id")
        key = piece.get("index")
        if key is None:  # a piece without a name goes on with the last call
            key = said if isinstance(said, str) and said else ("no id", self.count)
            if not name and key not in self._places:
                return CallDelta(self.count - 1, arguments=arguments) if self.count else None
        if not isinstance(key, int | str | tuple):
            return None
        if key in self._places:
            return CallDelta(self._places[key], arguments=arguments) if arguments else None
        if not name:
            return None
        self._places[key] = index = self.count
        self.count += 1
        known = said if isinstance(said, str) and said else f"call_{uuid.uuid4().hex[:24]}"
        return CallDelta(index, known, name, arguments)
