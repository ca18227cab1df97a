"""A user's program with LiteLLM; prints what it got as JSON."""

import asyncio
import json
import sys
from typing import Any

import litellm
import openai

URL, MODEL = sys.argv[1:]
HELLO = [{"role": "user", "content": "hello"}]
TALK = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "hi"},
    {"role": "user", "content": [{"type": "text", "text": "and now?"}]},
]


def access(model: str = MODEL) -> dict[str, Any]:
    return {"model": f"openai/{model}", "api_base": URL, "api_key": "none", "num_retries": 0}


def refusal(model: str, messages: Any = HELLO) -> list[Any]:
    try:
        litellm.completion(messages=messages, max_retries=0, **access(model))
    except openai.APIStatusError as error:  # LiteLLM's errors are of these classes
        return [type(error).__name__, error.status_code]
    return []


async def chunks() -> list[Any]:
    stream = await litellm.acompletion(
        messages=HELLO, seed=1, stream=True, stream_options={"include_usage": True}, **access()
    )
    return [chunk async for chunk in stream]


def main() -> None:
    whole = litellm.completion(messages=HELLO, seed=1, **access())
    streamed = asyncio.run(chunks())
    texts = [chunk.choices[0].delta.content for chunk in streamed if chunk.choices]
    usages = [chunk.usage.total_tokens for chunk in streamed if getattr(chunk, "usage", None)]
    report = {
        "whole": whole.choices[0].message.content,
        "finish": whole.choices[0].finish_reason,
        "pieces": [text for text in texts if text],
        "tokens": [whole.usage.total_tokens, sum(usages)],
        "talk": litellm.completion(messages=TALK, seed=1, **access()).choices[0].message.content,
        "unknown": refusal("nobody"),
        "broken": refusal("broken"),
        "overflow": refusal(MODEL, [{"role": "user", "content": "word " * 9000}]),
        "fingerprint": whole.system_fingerprint,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
