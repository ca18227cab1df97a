"""Reads calls of tools out of a model's text while the text grows.

A call is `<call_tool>{"name": NAME, "arguments": {...}}</call_tool>` (`tool_prompt.py`). Small models
often leave the marks out. So a text that begins with a call counts too, with or without a fence of
Markdown, if nothing else may have that form. What is no call of a known tool is text.
"""

import json
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import cast

import msgspec

from actors.engine import CallDelta, Delta
from actors.text.tool_prompt import BEGIN, END
from configs.tool_use import ToolUse

BEGINS, ENDS = (BEGIN, "<tool_call>"), (END, "</tool_call>")
"""The marks that count: ours, and those of Hermes and Qwen, which models may write out of habit."""
HEAD = re.compile(
    r'\s*\{\s*"(?:name|function)"\s*:\s*"(?P<name>[^"\\]{1,128})"\s*,'
    r'\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
"""The beginning of a call, up to its arguments."""
BARE = re.compile(r"\s*(?:```(?:json|xml|tool_call)?\s*)?(?:\[\s*)?")
"""What stands before a call without marks."""
MOST_HELD = 240
"""Most characters that are held back to find out whether they begin a call."""
CLOSING = " \t\r\n}],;`"
"""Characters that may close a call beside its mark."""
EMPTY = re.compile(r'\s*\{\s*"(?:name|function)"\s*:\s*"(?P<name>[^"\\]{1,128})"\s*\}')
"""A call without arguments."""


def with_calls(
    deltas: AsyncIterator[Delta], use: ToolUse, *, may_be_bare: bool
) -> AsyncGenerator[Delta]:
    """The deltas of an answer, with its calls of tools apart from its text.

    Args:
        deltas: as an engine gives them.
        use: the tools.
        may_be_bare: whether a call may come without marks.
    """
    return _with_calls(deltas, CallReader(use, may_be_bare=may_be_bare))


async def _with_calls(deltas: AsyncIterator[Delta], reader: "CallReader") -> AsyncGenerator[Delta]:
    ended = False
    async with aclosing(cast("AsyncGenerator[Delta]", deltas)) as written:
        async for delta in written:
            text, calls = reader.feed(delta.text) if delta.text else ("", [])
            finish = delta.finish_reason
            if finish is not None and not ended:
                ended = True
                rest, more = reader.end()
                text, calls = text + rest, calls + more
                if finish == "stop" and reader.count:
                    finish = "tool_calls"
            read = msgspec.structs.replace(
                delta, text=text, tool_calls=tuple(calls), finish_reason=finish
            )
            if read != Delta():
                yield read
        if not ended:
            text, calls = reader.end()
            if text or calls:
                yield Delta(text=text, tool_calls=tuple(calls))


class CallReader:
    """Tells the calls of one answer from its text."""

    def __init__(self, use: ToolUse, *, may_be_bare: bool = True) -> None:
        self._names = frozenset(use.names)
        self._most = None if use.parallel else 1
        self._may_be_bare = may_be_bare
        self._held = ""
        """What is not decided on yet."""
        self._is_start = True
        """Whether the answer has no text yet but blanks."""
        self._arguments: _Json | None = None
        """The arguments that are read now."""
        self._is_closing = False
        """Whether the last call has its arguments, and what closes it may come."""
        self.count = 0
        """How many calls there are."""

    def feed(self, text: str) -> tuple[str, list[CallDelta]]:
        """What the next piece adds: text, and pieces of calls."""
        self._held += text
        shown: list[str] = []
        calls: list[CallDelta] = []
        while self._step(shown, calls, is_end=False):
            pass
        return "".join(shown), calls

    def end(self) -> tuple[str, list[CallDelta]]:
        """What was held back, at the end of the answer."""
        shown: list[str] = []
        calls: list[CallDelta] = []
        while self._step(shown, calls, is_end=True):
            pass
        return "".join(shown), calls

    def _step(self, shown: list[str], calls: list[CallDelta], *, is_end: bool) -> bool:
        """Take what can be decided on off the front of the held text. Returns whether to go on."""
        if self._arguments is not None:
            return self._take_arguments(calls)
        if self._is_closing:
            return self._take_closing(is_end=is_end)
        if not self._held:
            return False
        at = min((n for mark in BEGINS if (n := self._held.find(mark)) >= 0), default=-1)
        if at == 0:
            return self._take_marked(shown, calls, is_end=is_end)
        if at < 0 and self._is_start and self._may_be_bare:
            begun = self._take_bare(calls, is_end=is_end)
            if begun is not None:
                return begun
        end = at if at > 0 else len(self._held) - (0 if is_end else _overlap(self._held))
        text, self._held = self._held[:end], self._held[end:]
        self._show(text, shown)
        return at > 0

    def _take_bare(self, calls: list[CallDelta], *, is_end: bool) -> bool | None:
        """Take a call without marks; None if there is none, False if more text has to come."""
        stripped = self._held.lstrip()
        if not stripped or not stripped.startswith(("{", "`", "[")):
            return None if stripped or is_end else False
        before = BARE.match(self._held)
        start = before.end() if before else 0
        head = HEAD.match(self._held, start)
        if head is not None:
            if head["name"] not in self._names:
                return None
            self._begin(head["name"], head.end(), calls)
            return True
        return None if is_end or len(stripped) > MOST_HELD else False

    def _take_marked(self, shown: list[str], calls: list[CallDelta], *, is_end: bool) -> bool:
        """Take the beginning of a call behind its mark."""
        begin = next(len(mark) for mark in BEGINS if self._held.startswith(mark))
        head = HEAD.match(self._held, begin)
        if head is not None and head["name"] in self._names:
            self._begin(head["name"], head.end(), calls)
            return True
        close = min((n for mark in ENDS if (n := self._held.find(mark)) >= 0), default=-1)
        if close < 0 and not is_end and head is None:
            return False
        empty = EMPTY.match(self._held, begin)
        if empty is not None and empty["name"] in self._names and close >= 0:
            self._held = self._held[close:]
            self._is_closing = True
            if self._most is None or self.count < self._most:
                calls.append(self._new(empty["name"], "{}"))
            return True
        other = _read_whole(self._held[begin:close], self._names) if close >= 0 else None
        if other is not None:  # its fields stand in another order
            self._held = self._held[close:]
            self._is_closing = True
            if self._most is None or self.count < self._most:
                calls.append(self._new(*other))
            return True
        text, self._held = self._held[:begin], self._held[begin:]
        self._show(text, shown)
        return True

    def _begin(self, name: str, end: int, calls: list[CallDelta]) -> None:
        self._held = self._held[end:]
        self._arguments = _Json()
        self._is_start = False
        if self._most is None or self.count < self._most:
            calls.append(self._new(name, ""))
        else:
            self._arguments.is_void = True

    def _new(self, name: str, arguments: str) -> CallDelta:
        self.count += 1
        self._is_start = False
        return CallDelta(self.count - 1, f"call_{uuid.uuid4().hex[:24]}", name, arguments)

    def _take_arguments(self, calls: list[CallDelta]) -> bool:
        assert self._arguments is not None
        end = self._arguments.feed(self._held)
        piece, self._held = self._held[:end], self._held[end:]
        if piece and not self._arguments.is_void:
            calls.append(CallDelta(self.count - 1, arguments=piece))
        if not self._arguments.is_complete:
            return False
        self._arguments = None
        self._is_closing = True
        return True

    def _take_closing(self, *, is_end: bool) -> bool:
        """Drop what closes a call, and blanks behind it."""
        self._held = self._held.lstrip(CLOSING)
        if self._held.startswith(ENDS):
            self._held = self._held[self._held.index(">") + 1 :]
            return True
        may_close = any(mark.startswith(self._held) for mark in ENDS)  # also if nothing is held
        if may_close and not is_end:
            return False
        self._is_closing = False
        return not may_close

    def _show(self, text: str, shown: list[str]) -> None:
        if text.strip():
            self._is_start = False
        if text:
            shown.append(text)


def _overlap(text: str) -> int:
    """How many characters at the end of a text may begin a mark."""
    for n in range(min(max(map(len, BEGINS)) - 1, len(text)), 0, -1):
        if any(mark.startswith(text[-n:]) for mark in BEGINS):
            return n
    return 0


def _read_whole(text: str, names: frozenset[str]) -> tuple[str, str] | None:
    """A whole call in any order of its fields."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    name = found.get("name", found.get("function"))
    arguments = found.get("arguments", found.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    if name not in names or not isinstance(arguments, dict):
        return None
    return str(name), json.dumps(arguments, ensure_ascii=False)


class _Json:
    """Finds the end of a JSON object in a text that grows."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_text = False
        self._is_escaped = False
        self.is_complete = False
        """Whether the object has ended."""
        self.is_void = False
        """Whether the object is thrown away, because the answer has as many calls as it may have."""

    def feed(self, text: str) -> int:
        """How many characters of the next piece are part of the object."""
        for n, character in enumerate(text):
            if self._is_escaped:
                self._is_escaped = False
            elif self._in_text:
                self._is_escaped = character == "\\"
                self._in_text = character != '"'
            elif character == '"':
                self._in_text = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self.is_complete = True
                    return n + 1
        return len(text)
