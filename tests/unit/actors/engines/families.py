"""Fakes of servers with the oddities of their families, as their sources and documents show them."""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from aiohttp import web

Body = dict[str, Any]
WORDS = ("Hello ", "wide ", "world")


def event(value: Any) -> str:
    return f"data: {json.dumps(value)}\n\n"


def piece(delta: Any, finish: str | None = None, **more: Any) -> Body:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "choices": [choice]} | more


class Refusal(Exception):
    """A server's refusal of a request."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


def openai(body: Body) -> str:
    """The models that think: no max_tokens, no temperature; usage in a chunk without choices."""
    if "max_tokens" in body:
        text = "Unsupported parameter: 'max_tokens' is not supported with this model. "
        error = {"message": text + "Use 'max_completion_tokens' instead.", "param": "max_tokens"}
        raise Refusal(400, {"error": error})
    texts = [event(piece({"role": "assistant", "content": "", "refusal": None}))]
    texts += [event(piece({"content": word})) for word in WORDS]
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    return "".join([*texts, event(piece({}, "stop")), event({"choices": [], "usage": usage})]) + DONE


def azure(_: Body) -> str:
    """The results of its filter come first, in a chunk without text."""
    filters: Body = {"choices": [], "prompt_filter_results": [{"content_filter_results": {}}]}
    return event(filters) + "".join(event(piece({"content": w})) for w in WORDS) + END


def mistral(body: Body) -> str:
    """It refuses what it does not know, and gives a content of parts."""
    if unknown := sorted(set(body) & {"stream_options", "seed"}):
        detail = [{"type": "extra_forbidden", "loc": ["body", unknown[0]], "msg": "Extra inputs"}]
        raise Refusal(422, {"object": "error", "message": {"detail": detail}})
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    parts: list[Any] = [thought, *({"type": "text", "text": word} for word in WORDS)]
    return "".join(event(piece({"content": [part]})) for part in parts) + END


def gemini(body: Body) -> str:
    """Errors in a list, no role but the first, reasons in capitals, usage in each chunk."""
    if any(message["role"] == "system" for message in body["messages"]):
        error = {"code": 400, "message": "Developer instruction is not enabled for models/gemma"}
        raise Refusal(400, [{"error": error | {"status": "INVALID_ARGUMENT"}}])
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    return "".join(event(piece({"content": w}, usage=usage)) for w in WORDS) + event(piece({}, "STOP"))


def ollama(_: Body) -> str:
    """A role and an empty reason in every chunk, and no usage."""
    return "".join(event(piece({"role": "assistant", "content": w}, "")) for w in WORDS) + END


def openrouter(_: Body) -> str:
    """Comments while it waits, reasoning under two names, null here and there."""
    wait = ": OPENROUTER PROCESSING\n\n" * 3
    details = [{"type": "reasoning.text", "text": "hm"}]
    thought = piece({"content": None, "reasoning": "hm", "reasoning_details": details}, None)
    return wait + event(thought) + "".join(event(piece({"content": w})) for w in WORDS) + END


def groq(_: Body) -> str:
    """Usage under its own name in the last chunk."""
    counts = {"id": "r", "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    first = event(piece({"role": "assistant"}, x_groq={"id": "r"}))
    texts = "".join(event(piece({"content": w})) for w in WORDS)
    return first + texts + event(piece({}, "stop", x_groq=counts)) + DONE


def tgi(_: Body) -> str:
    """No space behind `data:`, line ends of CRLF, its own reasons, no [DONE]."""
    text = "".join(event(piece({"content": w})) for w in WORDS) + event(piece({}, "eos_token"))
    return text.replace("data: ", "data:").replace("\n", "\r\n")


def llamacpp(body: Body) -> str:
    """A template that wants turns to alternate, told with status 500 and the template's source."""
    roles = [message["role"] for message in body["messages"] if message["role"] != "system"]
    if any(one == other for one, other in pairwise(roles)):
        text = "While executing in source:\n{{ raise_exception('System role not supported') }}\n"
        text += "Error: Jinja Exception: Conversation roles must alternate user/assistant/..."
        raise Refusal(500, {"error": {"code": 500, "message": text, "type": "server_error"}})
    return "".join(event(piece({"content": w}, timings={"predicted_n": 1})) for w in WORDS) + END


def fastchat(body: Body) -> str:
    """It does not stream errors: an object with a code of five digits, under status 200."""
    if "stream_options" in body:
        return event({"object": "error", "message": "stream_options: unknown", "code": 40001})
    return "".join(event(piece({"content": w})) for w in WORDS) + END


def dashscope(_: Body) -> str:
    """Fields of SSE around each event, and "null" for null."""
    texts = [event(piece({"content": word}, "null")) for word in WORDS]
    framed = "".join(f"id:{n}\nevent:result\n:HTTP_STATUS/200\n{t}" for n, t in enumerate(texts))
    return framed + END


def gateway(_: Body) -> str:
    """A gateway that turns a stream into one JSON value on many lines."""
    message = {"role": "assistant", "content": "".join(WORDS)}
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}, indent=1)


DONE = "data: [DONE]\n\n"
END = event(piece({}, "stop")) + DONE
FAMILIES: dict[str, Callable[[Body], str]] = {
    family.__name__: family
    for family in (
        *(openai, azure, mistral, gemini, ollama, openrouter),
        *(groq, tgi, llamacpp, fastchat, dashscope, gateway),
    )
}


def reply_of(family: str) -> Callable[[web.Request], Any]:
    """A handler that answers as the family does."""

    async def reply(request: web.Request) -> web.StreamResponse:
        try:
            text = FAMILIES[family](await request.json())
        except Refusal as refusal:
            return web.json_response(refusal.body, status=refusal.status)
        kind = "application/json" if text.startswith("{") else "text/event-stream"
        return web.Response(text=text, content_type=kind)

    return reply
