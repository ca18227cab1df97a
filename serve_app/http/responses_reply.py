"""Events of an answer -> objects and events of OpenAI's Responses API.

The wire form is built from plain dictionaries, because a class for each of its 50 kinds of objects
would cost a stream CPU time and say no more. Tests hold it to the types of the package `openai`.

Items of the output, in this order:

1. Each proposal is an item `reasoning`, with the proposal's text as its summary.
2. The reasoning of the model that writes the answer is an item `reasoning` with content.
3. The answer is an item `message`. An answer of calls alone has no such item.
4. Each call of a tool is an item `function_call`.
"""

import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic_core import to_json

from actors.engine import CallDelta, Delta, merge
from configs.errors import Overloaded, RequestError
from serve_app.error_schema import error_body
from serve_app.http.answer_schema import CompletionUsage
from serve_app.http.call_objects import call_item, joined, new_item_id, tool_fields
from serve_app.http.moa_object import moa_summary
from serve_app.http.response import count_usage, fingerprint
from serve_app.http.responses_request import REASONING_ID, ResponsesRequest
from serve_app.http.sse import COMMENT, in_one_line
from serve_app.mixture.events import AnswerDelta, AnswerDone, Event, ProposalDone, Summary

ECHOED = ("instructions", "max_output_tokens", "temperature", "top_p")
"""Parameters of the request that the response repeats."""

UNFINISHED = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why an answer is incomplete, by its finish reason."""

PREFIXES = {"message": "msg_", "reasoning": REASONING_ID}
"""How the IDs of items begin."""


class _Item:
    """An item of the output that grows."""

    def __init__(self, kind: str, index: int) -> None:
        self.kind = kind
        self.id = new_item_id() if kind == "function_call" else PREFIXES[kind] + uuid.uuid4().hex
        self.call: CallDelta | None = None
        """The first piece of the call, if the item is one."""
        self.index = index
        self.texts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def place(self) -> dict[str, Any]:
        """The fields by which an event says what it is about."""
        return {"item_id": self.id, "output_index": self.index, "content_index": 0}


class ResponsesReply:
    """Writes the answer to one request as JSON: the events of a stream, or one object.

    Args:
        request: what was asked.
        shows_proposals: whether proposals are shown as reasoning.
    """

    def __init__(self, request: ResponsesRequest, *, shows_proposals: bool) -> None:
        self.id = f"resp_{uuid.uuid4().hex}"
        self.shows_growth = self.shows_tokens = False
        self._shows_proposals = shows_proposals
        self._request = request
        self._created = int(time.time())
        self._sequence = 0
        self._output: list[dict[str, Any]] = []
        """The complete items."""
        self._open: _Item | None = None
        self._has_calls = False

    def role(self) -> str:
        """The first events of a stream."""
        return self._state("response.created") + self._state("response.in_progress")

    def chunks(self, batch: Sequence[Event]) -> str:
        """The server-sent events for the events of the answer; empty if the stream shows none of them.

        No events stand for a while without any event and become a sign of life.
        """
        if not batch:
            return COMMENT + self._state("response.in_progress")
        return "".join(map(self._event, batch))

    def error(self, error: RequestError) -> str:
        """The end of a stream that fails after it began: the error, then the failed response.

        OpenAI's clients raise an exception at an event with an `error` object. Without one, pydantic-ai
        takes a failed response for an empty answer and asks again. OpenAI's reference has the same
        fields beside the event's type.
        """
        told = error_body(error)["error"]
        flat = {name: told[name] for name in ("code", "message", "param")}
        code = "rate_limit_exceeded" if isinstance(error, Overloaded) else "server_error"
        failure = {"code": code, "message": told["message"]}
        return self._sse("error", **flat, error=told) + self._state(
            "response.failed", status="failed", error=failure
        )

    def whole(self, events: Sequence[Event], summary: Summary) -> str:
        """The answer in one piece, as JSON."""
        for event in events:
            if isinstance(event, ProposalDone) and self._shows_proposals:
                self._output.append(_proposal(event))
        deltas = [event.delta for event in events if isinstance(event, AnswerDelta)]
        answer = merge(deltas or [Delta()])
        if answer.reasoning:
            self._output.append(_reasoning(f"{REASONING_ID}{uuid.uuid4().hex}", answer.reasoning))
        status = _status(summary)
        if answer.text or not answer.tool_calls:
            self._output.append(_message(f"msg_{uuid.uuid4().hex}", answer.text, status))
        self._output += [call_item(new_item_id(), call, status) for call in joined(answer.tool_calls)]
        return in_one_line(to_json(self._ended(summary)).decode())

    def _event(self, event: Event) -> str:
        if isinstance(event, AnswerDelta):
            return self._grow(event.delta)
        if isinstance(event, ProposalDone) and self._shows_proposals:
            return self._whole_proposal(event)
        if isinstance(event, AnswerDone):
            return self._end(event.summary)
        return ""

    def _whole_proposal(self, event: ProposalDone) -> str:
        item, index = _proposal(event), len(self._output)
        self._output.append(item)
        (part,) = item["summary"]
        place = {"item_id": item["id"], "output_index": index, "summary_index": 0}
        name, empty = "response.reasoning_summary", {**part, "text": ""}
        begun = {**item, "summary": [], "status": "in_progress"}
        return (
            self._sse("response.output_item.added", output_index=index, item=begun)
            + self._sse(f"{name}_part.added", **place, part=empty)
            + self._sse(f"{name}_text.delta", **place, delta=part["text"])
            + self._sse(f"{name}_text.done", **place, text=part["text"])
            + self._sse(f"{name}_part.done", **place, part=part)
            + self._sse("response.output_item.done", output_index=index, item=item)
        )

    def _grow(self, delta: Delta) -> str:
        written = ""
        if delta.reasoning:
            written += self._switch("reasoning")
            written += self._delta("response.reasoning_text.delta", delta.reasoning, "")
        if delta.text:
            written += self._switch("message")
            written += self._delta("response.output_text.delta", delta.text, ',"logprobs":[]')
        for piece in delta.tool_calls:
            written += self._grow_call(piece)
        return written

    def _grow_call(self, piece: CallDelta) -> str:
        """The events of a piece of a call. A name begins a call, and ends the one before."""
        written = ""
        if piece.name:
            written += self._close("completed")
            item = self._open = _Item("function_call", len(self._output))
            item.call = piece
            self._has_calls = True
            begun = call_item(item.id, CallDelta(piece.index, piece.id, piece.name), "in_progress")
            written += self._sse("response.output_item.added", output_index=item.index, item=begun)
        open_item = self._open
        if open_item is not None and open_item.call is not None and piece.arguments:
            open_item.texts.append(piece.arguments)
            place = {"item_id": open_item.id, "output_index": open_item.index}
            name = "response.function_call_arguments.delta"
            written += self._sse(name, **place, delta=piece.arguments)
        return written

    def _close_call(self, item: "_Item", call: CallDelta, status: str) -> str:
        done = call_item(item.id, CallDelta(call.index, call.id, call.name, item.text), status)
        self._output.append(done)
        place = {"item_id": item.id, "output_index": item.index}
        name = "response.function_call_arguments.done"
        return self._sse(name, **place, name=call.name, arguments=item.text) + self._sse(
            "response.output_item.done", output_index=item.index, item=done
        )

    def _delta(self, name: str, text: str, more: str) -> str:
        assert self._open is not None
        self._open.texts.append(text)
        self._sequence += 1
        json = in_one_line(to_json(text).decode())
        return (
            f'event: {name}\ndata: {{"type":"{name}","sequence_number":{self._sequence - 1},'
            f'"item_id":"{self._open.id}","output_index":{self._open.index},"content_index":0,'
            f'"delta":{json}{more}}}\n\n'
        )

    def _switch(self, kind: str) -> str:
        """Open an item of this kind, unless it is open, and close the one before."""
        if self._open is not None and self._open.kind == kind:
            return ""
        closed = self._close("completed")
        item = self._open = _Item(kind, len(self._output))
        begun = _message(item.id, "", "in_progress") | {"content": []}
        if kind == "reasoning":
            begun = _reasoning(item.id, "", "in_progress") | {"content": []}
        return (
            closed
            + self._sse("response.output_item.added", output_index=item.index, item=begun)
            + self._sse("response.content_part.added", **item.place, part=_part(kind, ""))
        )

    def _close(self, status: str) -> str:
        item, self._open = self._open, None
        if item is None:
            return ""
        if item.call is not None:
            return self._close_call(item, item.call, status)
        more: dict[str, Any] = {}
        if item.kind == "reasoning":
            name, done = "reasoning_text", _reasoning(item.id, item.text)
        else:
            name, more = "output_text", {"logprobs": []}
            done = _message(item.id, item.text, status)
        self._output.append(done)
        return (
            self._sse(f"response.{name}.done", **item.place, text=item.text, **more)
            + self._sse("response.content_part.done", **item.place, part=_part(item.kind, item.text))
            + self._sse("response.output_item.done", output_index=item.index, item=done)
        )

    def _end(self, summary: Summary) -> str:
        status = _status(summary)
        written = "" if self._has_calls else self._switch("message")
        written += self._close(status)
        return written + self._sse(f"response.{status}", response=self._ended(summary))

    def _ended(self, summary: Summary) -> dict[str, Any]:
        status = _status(summary)
        reason = UNFINISHED.get(summary.answered.finish_reason)
        moa = moa_summary(summary, self._request.chat.ignored, None, self._request.chat.routed)
        return self._response(
            status=status,
            incomplete_details=None if reason is None else {"reason": reason},
            completed_at=int(time.time()) if status == "completed" else None,
            usage=_usage(count_usage(summary)),
            system_fingerprint=fingerprint(summary),
            moa=moa.model_dump(exclude_unset=True),
        )

    def _state(self, name: str, **changes: Any) -> str:
        return self._sse(name, response=self._response(**changes))

    def _response(self, **changes: Any) -> dict[str, Any]:
        fields = self._request.fields
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": self._request.chat.model,
            "output": list(self._output),
            "previous_response_id": None,
            "store": False,
            "text": {"format": {"type": "text"}},
            "truncation": "disabled",
            "usage": None,
            **tool_fields(self._request.chat.tool_use, is_off=fields.get("tool_choice") == "none"),
            **{name: fields.get(name) for name in ECHOED},
            "metadata": _texts(fields.get("metadata")),
            "reasoning": {"effort": self._request.chat.reasoning_effort, "summary": None},
            "user": user if isinstance(user := fields.get("user"), str) else None,
            **changes,
        }

    def _sse(self, name: str, /, **fields: Any) -> str:
        event = {"type": name, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return f"event: {name}\ndata: {in_one_line(to_json(event).decode())}\n\n"


def _texts(metadata: Any) -> dict[str, str] | None:
    """The metadata of a request, which nobody has read, as far as a response can have them."""
    if not isinstance(metadata, dict):
        return None
    return {name: value for name, value in metadata.items() if isinstance(value, str)}


def _status(summary: Summary) -> str:
    return "incomplete" if summary.answered.finish_reason in UNFINISHED else "completed"


def _proposal(event: ProposalDone) -> dict[str, Any]:
    # Clients that show all summaries as one text (LangChain, Vercel's AI SDK) put nothing between them.
    text = f"**Proposal of {event.model}**\n\n{event.text}\n\n"
    return {
        "id": f"{REASONING_ID}{uuid.uuid4().hex}",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text}],
        "status": "completed",
    }


def _reasoning(item: str, text: str, status: str = "completed") -> dict[str, Any]:
    content = [_part("reasoning", text)]
    return {"id": item, "type": "reasoning", "summary": [], "content": content, "status": status}


def _message(item: str, text: str, status: str) -> dict[str, Any]:
    content = [_part("message", text)]
    return {"id": item, "type": "message", "role": "assistant", "content": content, "status": status}


def _part(kind: str, text: str) -> dict[str, Any]:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(usage: CompletionUsage) -> dict[str, Any]:
    rows: Iterable[dict[str, Any]] = [row.model_dump() for row in usage.by_model]
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": _cached(usage), "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
        "all_calls": usage.all_calls.model_dump(),
        "by_model": rows,
    }


def _cached(usage: CompletionUsage) -> int:
    details = usage.prompt_tokens_details
    return 0 if details is None else details.cached_tokens or 0
