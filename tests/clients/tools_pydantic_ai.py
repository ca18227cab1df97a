"""A user's program with pydantic-ai: objects, and an agent with a tool, from real models, by both of
OpenAI's APIs. Prints what it got as JSON."""

import asyncio
import json
import os
from contextlib import suppress
from typing import Any

import openai
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, UsageLimitExceeded, UsageLimits
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

CASES: dict[str, Any] = json.loads(os.environ["CASES"])
SETTINGS: Any = {"temperature": 0, "max_tokens": 80}


class Weather(BaseModel):
    """The weather of a town."""

    town: str
    degrees: int


async def report(kind: Any) -> dict[str, Any]:
    client = openai.AsyncOpenAI(base_url=CASES["url"], api_key="none", max_retries=0)
    model = kind(CASES["name"], provider=OpenAIProvider(openai_client=client))
    said = "It is 18 degrees in Paris."
    by_tool = await Agent(model, output_type=Weather, model_settings=SETTINGS).run(said)
    native: Any = NativeOutput(Weather)
    by_form = await Agent(model, output_type=native, model_settings=SETTINGS).run(said)
    agent = Agent(model, model_settings=SETTINGS)
    asked: list[str] = []

    @agent.tool_plain  # type: ignore[untyped-decorator, unused-ignore]
    def weather(town: str) -> str:
        """Get the weather of a town."""
        asked.append(town)
        return f"18 degrees in {town}"

    told: Any = None
    with suppress(UsageLimitExceeded):  # a small model may call its tool again and again
        limits = UsageLimits(request_limit=3)
        told = (
            await agent.run("What is the weather in Paris? Use the tool.", usage_limits=limits)
        ).output
    return {
        "tool": by_tool.output.model_dump(),
        "native": by_form.output.model_dump(),
        "asked": asked,
        "told": told,
    }


async def main() -> None:
    kinds = {"chat": OpenAIChatModel, "responses": OpenAIResponsesModel}
    print(json.dumps({name: await report(kind) for name, kind in kinds.items()}))


if __name__ == "__main__":
    asyncio.run(main())
