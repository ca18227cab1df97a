"""Events of an answer -> OpenAI's response objects, whole or in chunks."""

import time
import uuid
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import msgspec
from openai.types.completion_usage import PromptTokensDetails

from actors.engine import CallDelta, Delta, merge
from configs.errors import RequestError
from serve_app.error_response import DONE, error_events
from serve_app.http.answer_schema import (
    ChatCompletion,
    ChatCompletionChunk,
    CompletionUsage,
    ModelUsage,
    TokenSum,
)
from serve_app.http.call_objects import call_piece, whole_calls
from serve_app.http.moa_object import moa_event, moa_summary, rounded
from serve_app.http.request import ChatRequest
from serve_app.http.shown_proposals import ShownProposals
from serve_app.http.sse import COMMENT, in_one_line, sse_event
from serve_app.mixture.events import AnswerDelta, AnswerDone, Event, ProposalDone, Role, Summary

TEXT_MARK = "\0"
"""Stands for the text in the chunk from which `_around_text` takes the parts before and after the text.
No other field of a chunk contains this character."""
_json = msgspec.json.Encoder().encode
"""The JSON of a text. pydantic_core's `to_json` writes the same bytes in 2.3 times the time."""


class ChatResponse:
    """Writes the answer to one request as JSON: the events of a stream, or one object.

    Args:
        request: what was asked.
        shown: shows the proposals of a stream as its reasoning; None if they are not shown so.
    """

    def __init__(self, request: ChatRequest, shown: ShownProposals | None = None) -> None:
        options = request.stream_options
        self._shown = shown
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self._head = {"id": self.id, "created": int(time.time()), "model": request.model}
        self.shows_growth = request.moa.events or shown is not None
        self.shows_tokens = request.moa.events
        self._shows_events = request.moa.events
        self._reasoning_field = request.moa.reasoning
        self._is_reasoning = False
        """Whether the last text of the stream was reasoning."""
        self._request = request
        self._shows_usage = options is not None and options.include_usage

    def role(self) -> str:
        """The first chunk of a stream, which names the role and has no text."""
        return self._chunk({"role": "assistant", "content": ""})

    def chunks(self, batch: Sequence[Event]) -> str:
        """The server-sent events for the events of the answer; empty if the stream shows none of them.

        No events stand for a while without any event and become a sign of life: a comment and a chunk
        without text, as one event (`sse.py` says why). The empty text is of the kind that came last,
        because clients end their fold of reasoning at a text, and an empty one is a text for LobeHub.
        """
        if len(batch) == 1:
            return self._event(batch[0])
        if batch:
            return "".join(map(self._event, batch))
        return COMMENT + _put(self._around_reasoning if self._is_reasoning else self._around_text, "")

    def _event(self, event: Event) -> str:
        if self._shown is not None and (reasoning := self._shown.take(event)):
            return self._text(Delta(reasoning=reasoning)) + self._shown_event(event)
        return self._shown_event(event)

    def _shown_event(self, event: Event) -> str:
        if isinstance(event, AnswerDelta):
            return self._text(event.delta)
        if isinstance(event, AnswerDone):
            return self._end(event.summary)
        if self._shows_events and (moa := moa_event(event)) is not None:
            return self._sse(choices=[], moa=moa)
        return ""

    def error(self, error: RequestError) -> str:
        """The end of a stream that fails after it began: the error, then `DONE`."""
        return error_events(error)

    def whole(self, events: Sequence[Event], summary: Summary) -> str:
        """The answer in one piece, as JSON."""
        deltas = [event.delta for event in events if isinstance(event, AnswerDelta)]
        answer = merge(deltas or [Delta()])
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
        finish: str = summary.answered.finish_reason
        if answer.tool_calls:
            message |= whole_calls(answer.tool_calls, older=self._request.older_calls)
            message["content"] = answer.text or None
            finish = self._finish(finish)
        if answer.reasoning and self._reasoning_field:
            message[self._reasoning_field] = answer.reasoning
        proposals = [event for event in events if isinstance(event, ProposalDone)]
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": finish,
            "logprobs": _logprobs(answer),
        }
        completion = ChatCompletion.model_validate(
            {
                **self._head,
                "object": "chat.completion",
                "choices": [choice],
                "system_fingerprint": fingerprint(summary),
                "usage": count_usage(summary),
                "moa": moa_summary(
                    summary,
                    self._request.ignored,
                    proposals if self._shows_events else None,
                    self._request.routed,
                ),
            }
        )
        return in_one_line(completion.model_dump_json(exclude_unset=True))

    def _text(self, delta: Delta) -> str:
        if delta.tool_calls:
            rest = msgspec.structs.replace(delta, tool_calls=())
            return self._text(rest) + self._calls(delta.tool_calls)
        if not (delta.text or delta.reasoning or delta.logprobs):
            return ""
        if not (delta.reasoning or delta.logprobs):
            self._is_reasoning = False
            return _put(self._around_text, delta.text)
        if not self._reasoning_field:
            delta = Delta(text=delta.text, logprobs=delta.logprobs)
        self._is_reasoning = bool(delta.reasoning) and not delta.text
        if self._is_reasoning and not delta.logprobs:
            return _put(self._around_reasoning, delta.reasoning)
        content: dict[str, Any] = {"content": delta.text} if delta.text else {}
        if delta.reasoning:
            content[str(self._reasoning_field)] = delta.reasoning
        return self._chunk(content, logprobs=_logprobs(delta)) if content or delta.logprobs else ""

    def _calls(self, pieces: Sequence[CallDelta]) -> str:
        self._is_reasoning = False
        older = self._request.older_calls
        return "".join([self._chunk(call_piece(piece, older=older)) for piece in pieces])

    def _finish(self, reason: str) -> str:
        """The finish reason under the name that the client knows."""
        is_older = reason == "tool_calls" and self._request.older_calls
        return "function_call" if is_older else reason

    @cached_property
    def _around_text(self) -> tuple[str, str]:
        """The parts before and after the text in a chunk that carries only text.

        Nearly all chunks of a stream carry only text and differ in nothing else. To put the text
        between the two parts costs a tenth of the CPU time of a chunk that pydantic makes.
        """
        return self._around("content")

    @cached_property
    def _around_reasoning(self) -> tuple[str, str]:
        """The same for a chunk that carries only reasoning."""
        return self._around(str(self._reasoning_field))

    def _around(self, field: str) -> tuple[str, str]:
        before, _, after = self._chunk({field: TEXT_MARK}).partition(_json(TEXT_MARK).decode())
        return before, after

    def _end(self, summary: Summary) -> str:
        """The chunk with the finish reason and the summary, the chunk with the usage if the request
        asks for the usage, and `DONE`."""
        moa = moa_summary(summary, self._request.ignored, None, self._request.routed)
        made = fingerprint(summary)
        finish = self._finish(summary.answered.finish_reason)
        last = self._chunk({}, finish=finish, system_fingerprint=made, moa=moa)
        usage = self._sse(choices=[], usage=count_usage(summary)) if self._shows_usage else ""
        return last + usage + DONE

    def _chunk(
        self,
        delta: dict[str, Any],
        *,
        finish: str | None = None,
        logprobs: dict[str, Any] | None = None,
        **fields: Any,
    ) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
        return self._sse(choices=[choice], **fields)

    def _sse(self, **fields: Any) -> str:
        if self._shows_usage:  # as in OpenAI's streams: null in all chunks but the last
            fields = {"usage": None} | fields
        chunk = ChatCompletionChunk.model_validate(
            {**self._head, "object": "chat.completion.chunk", **fields}
        )
        return sse_event(chunk.model_dump_json(exclude_unset=True))


def _put(around: tuple[str, str], text: str) -> str:
    """The chunk with this text between its fixed parts."""
    before, after = around
    return f"{before}{in_one_line(_json(text).decode())}{after}"


def fingerprint(summary: Summary) -> str:
    """OpenAI's `system_fingerprint`, which tells answers of different make apart. Proxies that drop
    fields which OpenAI does not have let it pass, so it says whether the answer is degraded."""
    return "slimmoa-degraded" if summary.degraded else "slimmoa"


def count_usage(summary: Summary) -> CompletionUsage:
    """The tokens of the conversation and its answer, and those of all finished calls, in sum and by
    model and role.

    `by_model` has one row for each model and role, in the order in which their first calls ended.
    Seconds are rounded to 0.1 ms.
    """
    rows: dict[tuple[str, str], ModelUsage] = {}
    for call in summary.calls:
        row = rows.setdefault((call.model, call.role), _no_usage(call.model, call.role))
        row.calls += 1
        row.prompt_tokens += call.prompt_tokens
        row.completion_tokens += call.completion_tokens
        row.cached_tokens += call.cached_tokens
        row.engine_s = rounded(row.engine_s + call.engine_s)
    read = sum(row.prompt_tokens for row in rows.values())
    written = sum(row.completion_tokens for row in rows.values())
    prompt, completion = summary.conversation_tokens, summary.answered.tokens
    return CompletionUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=_cached(summary)),
        all_calls=TokenSum(prompt_tokens=read, completion_tokens=written, total_tokens=read + written),
        by_model=list(rows.values()),
    )


def _cached(summary: Summary) -> int:
    """How many tokens of the conversation were in an engine's cache, as the call tells whose prompt
    gave `Summary.conversation_tokens`."""
    counted = summary.conversation_tokens
    cached = [call.cached_tokens for call in summary.calls if call.prompt_tokens == counted]
    return max(cached, default=0)


def _no_usage(model: str, role: Role) -> ModelUsage:
    return ModelUsage(
        model=model, role=role, calls=0, prompt_tokens=0, completion_tokens=0, engine_s=0.0
    )


def _logprobs(delta: Delta) -> dict[str, Any] | None:
    return {"content": list(delta.logprobs), "refusal": None} if delta.logprobs else None
