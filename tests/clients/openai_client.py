"""A user's program with OpenAI's Python client; prints what it got as JSON."""

import asyncio
import json
import os
import threading
from collections.abc import Callable
from typing import Any

import openai

CASES: dict[str, Any] = json.loads(os.environ["CASES"])
MODEL, HELLO = CASES["model"], CASES["hello"]


def client(key: str = CASES["key"], retries: int = 0) -> Any:
    return openai.OpenAI(base_url=CASES["url"], api_key=key, max_retries=retries)


def ask(messages: Any = HELLO, model: str = MODEL, **more: Any) -> Any:
    return client().chat.completions.create(model=model, messages=messages, seed=1, **more)


def refusal(act: Callable[[], Any]) -> list[Any]:
    try:
        act()
    except openai.APIError as error:
        status = getattr(error, "status_code", None)
        return [type(error).__name__, status, error.code, error.param, error.message]
    return []


async def pieces() -> list[str]:
    async with openai.AsyncOpenAI(base_url=CASES["url"], api_key=CASES["key"]) as chat:
        stream = await chat.chat.completions.create(model=MODEL, messages=HELLO, seed=1, stream=True)
        texts = [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]
        return [text for text in texts if text]


def responses() -> dict[str, Any]:
    """The same answer by the Responses API: whole, in pieces, and sent back for another."""
    asked: Any = {"model": MODEL, "extra_body": {"seed": 1}}
    whole = client().responses.create(input="hello", **asked)
    with client().responses.stream(input="hello", **asked) as stream:
        texts = [event.delta for event in stream if event.type == "response.output_text.delta"]
    talk = [*HELLO, *whole.output, {"role": "user", "content": "and now?"}]
    return {
        "texts": [whole.output_text, "".join(texts)],
        "reasoning": [item.summary[0].text for item in whole.output if item.type == "reasoning"],
        "talk": client().responses.create(input=talk, **asked).output_text,
        "refused": refusal(lambda: client().responses.create(input=CASES["overflow"], **asked)),
        "kept": refusal(lambda: client().responses.create(previous_response_id=whole.id, **asked)),
    }


def busy() -> dict[str, Any]:
    """A key for one answer at a time: refused while another is written, and let in behind it."""
    stream = client(CASES["alone"]).chat.completions.create(model="slow", messages=HELLO, stream=True)
    read = [next(stream) for _ in range(3)]
    refused = refusal(
        lambda: client(CASES["alone"]).chat.completions.create(model=MODEL, messages=HELLO)
    )
    threading.Timer(0.2, stream.close).start()
    again = client(CASES["alone"], 3).chat.completions.create(model=MODEL, messages=HELLO)
    return {"read": len(read), "refused": refused, "again": again.choices[0].message.content}


def main() -> None:
    whole = ask()
    shown = ask(extra_body={"moa": {"events": True}})
    streamed = list(
        ask(stream=True, stream_options={"include_usage": True}, extra_body={"moa": {"events": True}})
    )
    long = ask(CASES["long"])
    longer = list(ask(CASES["long"], stream=True))
    report = {
        "client": f"openai {openai.__version__}",
        "models": [model.id for model in client().models.list()],
        "whole": whole.choices[0].message.content,
        "finish": whole.choices[0].finish_reason,
        "pieces": asyncio.run(pieces()),
        "tokens": [whole.usage.total_tokens, streamed[-1].usage.total_tokens],
        "talk": ask(CASES["talk"]).choices[0].message.content,
        "again": ask([*HELLO, whole.choices[0].message, {"role": "user", "content": "and now?"}])
        .choices[0]
        .message.content,
        "proposals": [proposal["text"] for proposal in shown.moa["proposals"]],
        "events": [chunk.moa["type"] for chunk in streamed if hasattr(chunk, "moa")],
        "degraded": [
            long.moa["degraded"],
            long.system_fingerprint,
            [chunk.moa["degraded"] for chunk in longer if hasattr(chunk, "moa")],
            longer[-1].system_fingerprint,
        ],
        "responses": responses(),
        "busy": busy() if CASES["alone"] else None,
        "errors": {
            "unknown": refusal(lambda: ask(model="nobody")),
            "broken": refusal(lambda: ask(model="broken")),
            "key": refusal(lambda: client("wrong").models.list()),
            "overflow": refusal(lambda: ask(CASES["overflow"])),
            "streamed overflow": refusal(lambda: list(ask(CASES["overflow"], stream=True))),
            "parameter": refusal(lambda: ask(n=2)),
            "tools": refusal(lambda: ask(tool_choice="required")),
            "form": refusal(lambda: ask(response_format={"type": "json_object"})),
            "stream": refusal(lambda: CASES["silent"] and list(ask(model="silent", stream=True))),
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
