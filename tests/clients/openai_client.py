"""A user's program with OpenAI's Python client, sync and async; prints what it got as JSON."""

import asyncio
import json
import sys
from typing import Any

import openai

URL, MODEL = sys.argv[1:]
ACCESS: Any = {"base_url": URL, "api_key": "none", "max_retries": 0}
HELLO: Any = [{"role": "user", "content": "hello"}]
TALK: Any = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "hi"},
    {"role": "user", "content": [{"type": "text", "text": "and now?"}]},
]


async def pieces() -> list[str]:
    async with openai.AsyncOpenAI(**ACCESS) as client:
        stream = await client.chat.completions.create(model=MODEL, messages=HELLO, seed=1, stream=True)
        texts = [chunk.choices[0].delta.content async for chunk in stream]
        return [text for text in texts if text]


def responses(client: openai.OpenAI) -> list[str]:
    """The same answer by the Responses API, whole and in pieces."""
    seed = {"seed": 1}
    whole = client.responses.create(model=MODEL, input="hello", extra_body=seed)
    with client.responses.stream(model=MODEL, input="hello", extra_body=seed) as stream:
        texts = [event.delta for event in stream if event.type == "response.output_text.delta"]
    return [whole.output_text, "".join(texts)]


def refusal(client: openai.OpenAI, model: str) -> list[Any]:
    try:
        client.chat.completions.create(model=model, messages=HELLO)
    except openai.APIStatusError as error:
        return [type(error).__name__, error.status_code, error.code]
    return []


def main() -> None:
    client = openai.OpenAI(**ACCESS)
    whole = client.chat.completions.create(model=MODEL, messages=HELLO, seed=1)
    counted = list(
        client.chat.completions.create(
            model=MODEL, messages=HELLO, seed=1, stream=True, stream_options={"include_usage": True}
        )
    )[-1]
    talk = client.chat.completions.create(model=MODEL, messages=TALK, seed=1)
    assert whole.usage is not None
    assert counted.usage is not None
    report = {
        "models": [model.id for model in client.models.list()],
        "whole": whole.choices[0].message.content,
        "finish": whole.choices[0].finish_reason,
        "pieces": asyncio.run(pieces()),
        "tokens": [whole.usage.total_tokens, counted.usage.total_tokens],
        "talk": talk.choices[0].message.content,
        "responses": responses(client),
        "unknown": refusal(client, "nobody"),
        "broken": refusal(client, "broken"),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
