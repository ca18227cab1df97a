"""A user's program with LangChain's chat model for OpenAI's API; prints what it got as JSON."""

import asyncio
import importlib.metadata
import json
import os
import threading
from collections.abc import Callable
from typing import Any

import openai
from langchain_core.messages import HumanMessage, convert_to_messages
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

CASES: dict[str, Any] = json.loads(os.environ["CASES"])
HELLO = CASES["hello"]


class Weather(BaseModel):  # type: ignore[misc, unused-ignore]
    """The weather of a town."""

    town: str


def chat(model: str = CASES["model"], key: str = CASES["key"], retries: int = 0, **more: Any) -> Any:
    # stream_usage: by itself LangChain asks only OpenAI's own servers for the usage of streams.
    more = {"seed": 1, "stream_usage": True} | more
    return ChatOpenAI(model=model, base_url=CASES["url"], api_key=key, max_retries=retries, **more)


def refusal(act: Callable[[], Any]) -> list[Any]:
    try:
        act()
    except openai.APIError as error:
        status = getattr(error, "status_code", None)
        return [type(error).__name__, status, error.code, error.param, error.message]
    return []


async def chunks(**more: Any) -> list[Any]:
    return [chunk async for chunk in chat(**more).astream(HELLO)]


def responses() -> dict[str, Any]:
    """The same by the Responses API, which LangChain takes where a user asks for it."""
    model = chat(use_responses_api=True, seed=None, stream_usage=False)
    whole = model.invoke(HELLO)
    streamed = list(model.stream(HELLO))
    kinds = [block["type"] for chunk in streamed for block in chunk.content_blocks]
    talk = [*convert_to_messages(HELLO), whole, HumanMessage("and now?")]
    return {
        "words": len(whole.text.split()),
        "streamed words": len("".join(chunk.text for chunk in streamed).split()),
        "reasoning": [b["reasoning"] for b in whole.content_blocks if b["type"] == "reasoning"],
        "streamed reasoning": kinds.count("reasoning"),
        "talk words": len(model.invoke(talk).text.split()),
    }


def busy() -> dict[str, Any]:
    """A key for one answer at a time: refused while another is written, and let in behind it."""
    stream = chat("slow", CASES["alone"]).stream(HELLO)
    read = [next(stream) for _ in range(4)]
    refused = refusal(lambda: chat(key=CASES["alone"]).invoke(HELLO))
    threading.Timer(0.2, stream.close).start()
    again = chat(key=CASES["alone"], retries=3).invoke(HELLO)
    return {"read": len(read), "refused": refused, "again": again.content}


def main() -> None:
    whole = chat().invoke(HELLO)
    streamed = asyncio.run(chunks(extra_body={"moa": {"events": True}}))
    chain = ChatPromptTemplate.from_messages([("user", "{said}")]) | chat() | StrOutputParser()
    usages = [chunk.usage_metadata["total_tokens"] for chunk in streamed if chunk.usage_metadata]
    long = chat().invoke(CASES["long"])
    longer = list(chat().stream(CASES["long"]))
    gathered = longer[0]
    for chunk in longer[1:]:
        gathered += chunk
    report = {
        "client": " ".join(
            f"{name} {importlib.metadata.version(name)}"
            for name in ("langchain-openai", "langchain-core")
        ),
        "chain": chain.invoke({"said": "hello"}),
        "whole": whole.content,
        "finish": whole.response_metadata["finish_reason"],
        "pieces": [chunk.content for chunk in streamed if chunk.content],
        "tokens": [whole.usage_metadata["total_tokens"], sum(usages)],
        "talk": chat().invoke(CASES["talk"]).content,
        "again": chat().invoke([*convert_to_messages(HELLO), whole, HumanMessage("and now?")]).content,
        "shows moa": "missing" in str(long),
        "degraded": [
            long.response_metadata.get("system_fingerprint"),
            gathered.response_metadata.get("system_fingerprint"),
        ],
        "responses": responses(),
        "busy": busy(),
        "errors": {
            "unknown": refusal(lambda: chat("nobody").invoke(HELLO)),
            "broken": refusal(lambda: chat("broken").invoke(HELLO)),
            "key": refusal(lambda: chat(key="wrong").invoke(HELLO)),
            "overflow": refusal(lambda: chat().invoke(CASES["overflow"])),
            "streamed overflow": refusal(lambda: list(chat().stream(CASES["overflow"]))),
            "parameter": refusal(lambda: chat(n=2).invoke(HELLO)),
            "tools": refusal(
                lambda: chat().bind_tools([Weather], tool_choice="required").invoke(HELLO)
            ),
            "form": refusal(lambda: chat().with_structured_output(Weather).invoke(HELLO)),
            "stream": refusal(lambda: CASES["silent"] and list(chat("silent").stream(HELLO))),
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
