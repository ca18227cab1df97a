"""Sends bodies that clients' types allow, and changes of them, and looks at what comes back.

A case fails if one of these does not hold:

1. The status is 200, or 4xx with an error of OpenAI's shape. Where engines fail now and
   then, 502 to 504 too; then the same body is sent again.
2. An error of a readable body names a parameter, and what it names was sent or is needed.
3. The body without what the errors name, one after the other, is answered.
4. An answer has the types of the package `openai`, whole or streamed; a stream has an end that says how
   the answer ended, and no line that Unicode would split.
5. No case takes longer than CASE_S.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from benchmarks.faults.client_bodies import CHAT, RESPONSES
from benchmarks.faults.mutations import as_bytes
from serve_app.error_schema import ErrorReply

CASE_S = 10.0
"""Longest time of a case, in seconds."""
MOST_ITEMS = 20
"""Most items of a list that are mended one by one."""
MOST_MENDS = 200
"""Most errors of one body, each of another parameter."""
MOST_SHOWN = 2000
"""Most characters of a body that a failure shows."""
MODEL = "mix"
"""The model that stands in for one that does not exist."""
HELLO = [{"role": "user", "content": "hello"}]
ENDS = ("response.completed", "response.incomplete", "response.failed")
_event: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server sent for one request."""

    status: int
    content_type: str
    body: bytes


Send = Callable[[str, bytes], Awaitable[Reply]]
"""Sends a body to a path, and returns what comes back."""
Case = tuple[str, str, dict[str, Any]]
"""Path, kind and body."""


@dataclass(slots=True)
class Found:
    """What came of the cases."""

    statuses: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    """First answers, by path, kind of case and status."""
    requests: int = 0
    """All requests: one for each case, and one more for each parameter that an error named."""
    slowest_s: float = 0.0
    failures: list[str] = field(default_factory=list)
    """What was wrong, and the body."""

    @property
    def cases(self) -> int:
        """How many were answered."""
        return self.statuses.total()


async def fuzz(
    cases: Iterable[Case], send: Send, seed: int, at_once: int = 1, faulty: bool = False
) -> Found:
    """Send all cases.

    Args:
        cases: what to send.
        send: how to send.
        seed: decides the bytes of the bodies.
        at_once: so many cases are on their way at a time.
        faulty: whether the server's engines fail now and then.
    """
    found = Found()
    waiting = iter(enumerate(cases))

    async def worker() -> None:
        for n, (path, kind, body) in waiting:
            case = _Sent(send, found, path, kind, faulty, Random(f"{seed}/{n}"))
            try:
                await case.run(body)
            except (AssertionError, ValueError, TimeoutError, aiohttp.ClientError) as error:
                shown = json.dumps(case.body)[:MOST_SHOWN]
                found.failures.append(f"{type(error).__name__}: {str(error)[:600]}\n{path} {shown}")

    await asyncio.gather(*(worker() for _ in range(at_once)))
    for path, history in ((CHAT, {"messages": HELLO}), (RESPONSES, {"input": "hello"})):
        body = json.dumps({"model": MODEL, **history}).encode()
        last = [(await send(path, body)).status for _ in range(20 if faulty else 1)]
        if 200 not in last:
            found.failures.append(f"after all cases, {path} answers {last}")
    return found


@asynccontextmanager
async def over_http(url: str) -> AsyncIterator[Send]:
    """Sends to a real server."""
    headers = {"content-type": "application/json"}
    timeout = aiohttp.ClientTimeout(total=2 * CASE_S)
    async with aiohttp.ClientSession(url, headers=headers, timeout=timeout) as session:

        async def send(path: str, body: bytes) -> Reply:
            async with session.post(path, data=body) as response:
                return Reply(response.status, response.content_type, await response.read())

        yield send


class _Sent:
    """One case on its way: the body as it was drawn, then without what errors name."""

    def __init__(
        self, send: Send, found: Found, path: str, kind: str, faulty: bool, random: Random
    ) -> None:
        self._send, self._found = send, found
        self._path, self._kind = path, kind
        self._allowed = (200, 502, 503, 504) if faulty else (200,)
        self._random = random
        self.body: dict[str, Any] = {}

    async def run(self, body: dict[str, Any]) -> None:
        """Send the body until it is answered."""
        self.body = body
        reply = await self._ask(as_bytes(self._random, body))
        self._found.statuses[self._path, self._kind, reply.status] += 1
        self.body = json.loads(json.dumps(body))  # deepcopy fails where it is deep
        for _ in range(MOST_MENDS):
            if reply.status == 200:
                return
            error = _error(reply)
            if reply.status in self._allowed:
                pass  # an engine has failed
            elif error.param is not None:
                mend(self.body, error.param)
            elif "the body" in error.message:
                self.body = {"messages": HELLO} if self._path == CHAT else {"input": "hello"}
            else:
                raise AssertionError(f"names no parameter: {error.message}")
            reply = await self._ask(json.dumps(self.body).encode())
        raise AssertionError(f"is refused for ever: {reply.body[:300]!r}")

    async def _ask(self, body: bytes) -> Reply:
        began = time.monotonic()
        async with asyncio.timeout(2 * CASE_S):
            reply = await self._send(self._path, body)
        took_s = time.monotonic() - began
        self._found.slowest_s = max(self._found.slowest_s, took_s)
        self._found.requests += 1
        assert took_s < CASE_S, f"took {took_s:.1f} s"
        check(self._path, reply, self._allowed)
        return reply


def check(path: str, reply: Reply, allowed: tuple[int, ...] = (200,)) -> None:
    """Hold a reply to what a client needs.

    Raises:
        AssertionError, ValueError: the reply is no good.
    """
    if reply.status != 200:
        assert reply.status in allowed or 400 <= reply.status < 500, (
            f"{reply.status}: {reply.body[:300]!r}"
        )
        _error(reply)
    elif reply.content_type.startswith("text/event-stream"):
        text = reply.body.decode()
        assert text.splitlines() == text.split("\n")[:-1], "a line that Unicode splits"
        _check_stream(path, text)
    elif path == CHAT:
        ended = ChatCompletion.model_validate_json(reply.body, strict=True).choices[0]
        assert ended.finish_reason
    else:
        response = Response.model_validate_json(reply.body, strict=True)
        assert response.status in ("completed", "incomplete"), response.status


def _error(reply: Reply) -> Any:
    return ErrorReply.model_validate_json(reply.body, strict=True, extra="forbid").error


def _check_stream(path: str, text: str) -> None:
    *blocks, last = text.split("\n\n")
    assert not last, f"a cut event: {last[-200:]!r}"
    data = [line[6:] for block in blocks for line in block.split("\n") if line.startswith("data: ")]
    assert len(data) == len(blocks), "an event without data"
    if path == CHAT:
        assert data.pop() == "[DONE]"
        if "error" in json.loads(data[-1]):
            ErrorReply.model_validate_json(data.pop(), strict=True, extra="forbid")
            return
        chunks = [ChatCompletionChunk.model_validate_json(each, strict=True) for each in data]
        reasons = [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]
        assert len(reasons) == 1, f"{len(reasons)} ends"
        return
    events = [_event.validate_json(each) for each in data]
    numbers, ends = [e.sequence_number for e in events], [e.type for e in events if e.type in ENDS]
    assert numbers == list(range(len(events))), f"events in the order {numbers}"
    assert ends == [events[-1].type], f"ends {ends}, then {events[-1].type}"


def mend(body: dict[str, Any], param: str) -> None:
    """Take what an error names out of a body, or put in what the error says is missing.

    Raises:
        AssertionError: there is no such thing.
    """
    if param in ("messages", "input", "model"):
        needed = {"messages": HELLO, "input": "hello", "model": MODEL}
        assert body.get(param) != needed[param], f"names {param!r}, which is good"
        body[param] = needed[param]
        return
    holder, key = _deepest(body, param)
    assert holder is not None, f"names {param!r}, which was not sent"
    if isinstance(holder, list) and len(holder) > MOST_ITEMS:
        holder.clear()
    else:
        del holder[key]
    if holder is not body and not holder and param.startswith(("messages", "input")):
        body[param.partition(".")[0]] = "hello" if param.startswith("input") else HELLO


def _deepest(value: Any, path: str) -> tuple[Any, Any]:
    """The deepest place of a body on a path: the object or list, and the key. A key may have dots, and
    a long one is named by its beginning."""
    for key in _keys(value):
        name = str(key)
        if path == name or (len(path) >= 80 and name.startswith(path)):
            return value, key
        if path.startswith(f"{name}."):
            holder, inner = _deepest(value[key], path[len(name) + 1 :])
            return (value, key) if holder is None else (holder, inner)
    return None, None


def _keys(value: Any) -> list[Any]:
    """The longest first, so that `a.b` is found before `a`."""
    if isinstance(value, dict):
        return sorted(value, key=len, reverse=True)
    return list(range(len(value))) if isinstance(value, list) else []
