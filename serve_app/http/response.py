"""Events of an answer -> OpenAI's response objects, whole or in chunks."""

import json
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, ConfigDict

from actors.engine import Delta
from configs.errors import RequestError
from serve_app.http.request import ChatRequest
from serve_app.mixture.events import (
    AnswerDelta,
    AnswerDone,
    Call,
    Event,
    Missing,
    ProposalDelta,
    ProposalDone,
    ProposalDropped,
    Retried,
    StageDone,
    Summary,
    Trimmed,
)

DONE = "data: [DONE]\n\n"
KEEPALIVE = ": keep-alive\n\n"


class ErrorObject(BaseModel):
    """OpenAI's error object, which here also names the model at fault."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    message: str
    """The text for people."""
    type: str
    """OpenAI's class of errors."""
    param: str | None
    """The request's parameter at fault, if one is."""
    code: str
    """The cause, for programs."""
    model: str | None
    """The model at fault, if one is."""


class ErrorReply(BaseModel):
    """Every answer that is an error."""

    error: ErrorObject


class ChatResponse:
    """Makes the objects that answer one request."""

    def __init__(self, request: ChatRequest) -> None:
        options = request.stream_options
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self._head = {"id": self.id, "created": int(time.time()), "model": request.model}
        self._extra = request.moa.events
        self._ignored = list(request.ignored)
        self._usage = options is not None and options.include_usage

    def role(self) -> str:
        """The first chunk, sent before any work is done."""
        return self._chunk({"role": "assistant", "content": ""})

    def chunk(self, event: Event | None) -> str:
        """What a stream says of an event, or of none for a while; it may be nothing."""
        match event:
            case None:
                return KEEPALIVE
            case AnswerDelta():
                return self._text(event.delta)
            case AnswerDone():
                return self._end(event.summary)
        if self._extra and (moa := moa_event(event)) is not None:
            return self._sse(choices=[], moa=moa)
        return ""

    def error(self, error: RequestError) -> str:
        """The end of a stream that failed after it had begun."""
        return f"data: {json.dumps(error_body(error))}\n\n{DONE}"

    def whole(self, events: Sequence[Event], summary: Summary) -> str:
        """The answer in one piece."""
        answer = Delta()
        for event in events:
            if isinstance(event, AnswerDelta):
                answer = answer.plus(event.delta)
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        moa = self._moa(summary)
        if self._extra:
            moa["proposals"] = [moa_event(e) for e in events if isinstance(e, ProposalDone)]
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": summary.answered.finish_reason,
            "logprobs": _logprobs(answer),
        }
        completion = ChatCompletion.model_validate(
            {
                **self._head,
                "object": "chat.completion",
                "choices": [choice],
                "usage": usage_of(summary.calls),
                "moa": moa,
            }
        )
        return completion.model_dump_json(exclude_unset=True)

    def _moa(self, summary: Summary) -> dict[str, Any]:
        return moa_summary(summary) | ({"ignored": self._ignored} if self._ignored else {})

    def _end(self, summary: Summary) -> str:
        last = self._chunk({}, finish=summary.answered.finish_reason, moa=self._moa(summary))
        counted = self._sse(choices=[], usage=usage_of(summary.calls)) if self._usage else ""
        return last + counted + DONE

    def _text(self, delta: Delta) -> str:
        if not (delta.text or delta.reasoning or delta.logprobs):
            return ""
        content: dict[str, Any] = {"content": delta.text} if delta.text else {}
        if delta.reasoning:
            content["reasoning_content"] = delta.reasoning
        return self._chunk(content, logprobs=_logprobs(delta))

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
        if self._usage:  # as OpenAI's: null in all chunks but the one that has it
            fields = {"usage": None} | fields
        chunk = ChatCompletionChunk.model_validate(
            {**self._head, "object": "chat.completion.chunk", **fields}
        )
        return f"data: {chunk.model_dump_json(exclude_unset=True)}\n\n"


def usage_of(calls: Iterable[Call]) -> CompletionUsage:
    """Usage summed over all finished calls, with a breakdown by model and role in `by_model`."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for call in calls:
        row = rows.setdefault(
            (call.model, call.role),
            {"model": call.model, "role": call.role, "calls": 0}
            | {"prompt_tokens": 0, "completion_tokens": 0, "engine_s": 0.0},
        )
        row["calls"] += 1
        row["prompt_tokens"] += call.prompt_tokens
        row["completion_tokens"] += call.completion_tokens
        row["engine_s"] = round(row["engine_s"] + call.engine_s, 4)
    prompt = sum(row["prompt_tokens"] for row in rows.values())
    completion = sum(row["completion_tokens"] for row in rows.values())
    return CompletionUsage.model_validate(
        {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "by_model": list(rows.values()),
        }
    )


def moa_summary(summary: Summary) -> dict[str, Any]:
    """The `moa` object at the end of every answer."""
    answered = summary.answered
    return {
        "type": "summary",
        "degraded": summary.degraded,
        "missing": [asdict(missing) for missing in summary.missing],
        "answered_by": answered.model,
        "fallback": answered.fallback,
        "cut": answered.cut,
        "trimmed": [asdict(trimmed) for trimmed in summary.trimmed],
        "retried": [asdict(retried) for retried in summary.retried],
        "stages": [_rounded(asdict(stage)) for stage in summary.stages],
        "seed": summary.seed,
    }


def moa_event(event: Event) -> dict[str, Any] | None:
    """The `moa` object of an event; None for those that a stream shows otherwise."""
    match event:
        case ProposalDelta():
            return {"type": "proposal.delta", **asdict(event)}
        case ProposalDone():
            fields = {k: v for k, v in asdict(event).items() if k != "call"}
            tokens = {"completion_tokens": event.call.completion_tokens}
            return _rounded({"type": "proposal.done", **fields, **tokens})
        case ProposalDropped():
            return {"type": "proposal.dropped", "place": event.place, **asdict(event.missing)}
        case Missing():
            return {"type": "aggregator.failed", **asdict(event)}
        case Trimmed():
            return {"type": "trimmed", **asdict(event)}
        case Retried():
            return {"type": "retried", **asdict(event)}
        case StageDone():
            return _rounded({"type": "stage.done", **asdict(event)})
    return None


def error_body(error: RequestError) -> dict[str, Any]:
    """An ErrorReply as JSON's objects."""
    said = ErrorObject(
        message=error.message, type=error.kind, param=error.param, code=error.code, model=error.model
    )
    return ErrorReply(error=said).model_dump()


def _rounded(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in fields.items()}


def _logprobs(delta: Delta) -> dict[str, Any] | None:
    return {"content": list(delta.logprobs), "refusal": None} if delta.logprobs else None
