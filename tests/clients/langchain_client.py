"""A user's program with LangChain's chat model for OpenAI's API; prints what it got as JSON."""

import asyncio
import json
import sys
from typing import Any

import openai
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

URL, MODEL = sys.argv[1:]
TALK = [
    SystemMessage("Be short."),
    HumanMessage("hello"),
    AIMessage("hi"),
    HumanMessage([{"type": "text", "text": "and now?"}]),
]


def chat(model: str = MODEL) -> ChatOpenAI:
    # stream_usage: by itself LangChain asks only OpenAI's own servers for the usage of streams.
    return ChatOpenAI(
        model=model, base_url=URL, api_key="none", max_retries=0, seed=1, stream_usage=True
    )


def refusal(model: str) -> list[Any]:
    try:
        chat(model).invoke("hello")
    except openai.APIStatusError as error:
        return [type(error).__name__, error.status_code, error.code]
    return []


async def chunks() -> list[Any]:
    return [chunk async for chunk in chat().astream("hello")]


def main() -> None:
    whole = chat().invoke("hello")
    streamed = asyncio.run(chunks())
    chain = ChatPromptTemplate.from_messages([("user", "{said}")]) | chat() | StrOutputParser()
    usages = [chunk.usage_metadata["total_tokens"] for chunk in streamed if chunk.usage_metadata]
    report = {
        "chain": chain.invoke({"said": "hello"}),
        "whole": whole.content,
        "finish": whole.response_metadata["finish_reason"],
        "pieces": [chunk.content for chunk in streamed if chunk.content],
        "tokens": [whole.usage_metadata["total_tokens"], sum(usages)],
        "talk": chat().invoke(TALK).content,
        "unknown": refusal("nobody"),
        "broken": refusal("broken"),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
