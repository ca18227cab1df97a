"""A user's program with LiteLLM; prints what it got as JSON.

With a key and an address of LiteLLM's proxy it says the same to the proxy that stands in front.
"""

import asyncio
import importlib.metadata
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import litellm
import openai

CASES: dict[str, Any] = json.loads(os.environ["CASES"])
HELLO = CASES["hello"]
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}


def access(model: str = CASES["model"], key: str = CASES["key"]) -> dict[str, Any]:
    return {"model": f"openai/{model}", "api_base": CASES["url"], "api_key": key}


def ask(
    messages: Any = HELLO, model: str = CASES["model"], key: str = CASES["key"], **more: Any
) -> Any:
    more = {"max_retries": 0, "num_retries": 0} | more
    return litellm.completion(messages=messages, **access(model, key), **more)


def refusal(act: Callable[[], Any]) -> list[Any]:
    try:
        act()
    except openai.APIError as error:  # LiteLLM's errors are of these classes
        return [type(error).__name__, getattr(error, "status_code", None), error.code, None, str(error)]
    return []


async def chunks() -> list[Any]:
    stream = await litellm.acompletion(
        messages=HELLO, seed=1, stream=True, stream_options={"include_usage": True}, **access()
    )
    return [chunk async for chunk in stream]


def responses() -> dict[str, Any]:
    whole = litellm.responses(input="hello", **access())
    streamed = list(litellm.responses(input="hello", stream=True, **access()))
    kinds = [str(getattr(event, "type", "")) for event in streamed]
    return {
        "words": len(whole.output[-1].content[0].text.split()),
        "reasoning": [item.summary[0].text for item in whole.output if item.type == "reasoning"],
        "last event": kinds[-1],
    }


async def leave() -> int:
    """Begin a long answer, and leave it behind three pieces."""
    stream = await litellm.acompletion(messages=HELLO, stream=True, **access("slow", CASES["alone"]))
    read = 0
    async for chunk in stream:
        read += bool(chunk.choices[0].delta.content)
        if read == 3:
            break
    await stream.aclose()
    return read


def busy() -> dict[str, Any]:
    """A key for one answer at a time: refused while another is written, and let in behind it."""
    holder = threading.Thread(
        target=ask, kwargs={"model": "slow", "key": CASES["alone"], "max_tokens": 60}
    )
    holder.start()
    time.sleep(0.2)
    refused = refusal(lambda: ask(key=CASES["alone"]))
    again = ask(key=CASES["alone"], num_retries=3)
    holder.join()
    read = asyncio.run(leave())
    time.sleep(0.1)
    left = refusal(lambda: ask(key=CASES["alone"]))
    return {
        "read": read,
        "refused": refused,
        "again": again.choices[0].message.content,
        "left": left,
    }


def main() -> None:
    whole = ask(seed=1)
    streamed = asyncio.run(chunks())
    texts = [chunk.choices[0].delta.content for chunk in streamed if chunk.choices]
    usages = [chunk.usage.total_tokens for chunk in streamed if getattr(chunk, "usage", None)]
    shown = ask(seed=1, extra_body={"moa": {"events": True}})
    long = ask(CASES["long"])
    longer = list(ask(CASES["long"], stream=True))
    report = {
        "client": f"litellm {importlib.metadata.version('litellm')}",
        "whole": whole.choices[0].message.content,
        "finish": whole.choices[0].finish_reason,
        "pieces": [text for text in texts if text],
        "tokens": [whole.usage.total_tokens, sum(usages)],
        "talk": ask(CASES["talk"], seed=1).choices[0].message.content,
        "again": ask([*HELLO, whole.choices[0].message, {"role": "user", "content": "and now?"}])
        .choices[0]
        .message.content,
        "shows moa": [hasattr(shown, "moa"), any(hasattr(chunk, "moa") for chunk in longer)],
        "degraded": [long.system_fingerprint, longer[-1].system_fingerprint],
        "responses": responses(),
        "busy": busy(),
        "errors": {
            "unknown": refusal(lambda: ask(model="nobody")),
            "broken": refusal(lambda: ask(model="broken")),
            "key": refusal(lambda: ask(key="wrong")),
            "overflow": refusal(lambda: ask(CASES["overflow"])),
            "streamed overflow": refusal(lambda: list(ask(CASES["overflow"], stream=True))),
            "parameter": refusal(lambda: ask(n=2)),
            "tools": refusal(lambda: ask(tools=[TOOL], tool_choice="required")),
            "form": refusal(lambda: ask(response_format={"type": "json_object"})),
            "stream": refusal(lambda: CASES["silent"] and list(ask(model="silent", stream=True))),
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
