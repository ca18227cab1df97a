"""A user's program with pydantic-ai, by chat completions and by the Responses API, which is its default
for OpenAI's models. Prints what it got as JSON."""

import asyncio
import importlib.metadata
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

import openai
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

CASES: dict[str, Any] = json.loads(os.environ["CASES"])
LONG, OVERFLOW = CASES["long"][0]["content"], CASES["overflow"][0]["content"]


class Weather(BaseModel):
    """The weather of a town."""

    town: str


class Client:
    """Agents of one of pydantic-ai's two models for OpenAI's APIs."""

    def __init__(self, kind: type[Any]) -> None:
        self._kind = kind

    def agent(self, model: str = "mix", key: str = CASES["key"], retries: int = 0, **more: Any) -> Any:
        client = openai.AsyncOpenAI(base_url=CASES["url"], api_key=key, max_retries=retries)
        return Agent(self._kind(model, provider=OpenAIProvider(openai_client=client)), **more)

    async def refusal(self, act: Callable[[], Awaitable[Any]]) -> list[Any]:
        try:
            await act()
        except Exception as error:  # the report shows which it was
            return [type(error).__name__, getattr(error, "status_code", None), None, None, str(error)]
        return []

    async def busy(self) -> dict[str, Any]:
        """A key for one answer at a time: refused while another is written, and let in behind it."""
        read = 0
        async with self.agent("slow", CASES["alone"]).run_stream("hello") as slow:
            async for _ in slow.stream_text(delta=True, debounce_by=None):
                if (read := read + 1) == 3:
                    break
            refused = await self.refusal(lambda: self.agent(key=CASES["alone"]).run("hello"))
        again = await self.agent(key=CASES["alone"], retries=3).run("hello")
        return {"read": read, "refused": refused, "again": again.output}

    async def stream(self, model: str, said: str) -> Any:
        async with self.agent(model).run_stream(said) as result:
            pieces = [text async for text in result.stream_text(delta=True, debounce_by=None)]
            return pieces, result.usage, result.all_messages()

    async def report(self) -> dict[str, Any]:
        whole = await self.agent().run("hello", model_settings={"seed": 1})
        pieces, usage, _ = await self.stream("mix", "hello")
        response = whole.all_messages()[-1]
        talk = whole.all_messages()
        long = (await self.agent().run(LONG)).all_messages()[-1]
        return {
            "whole": whole.output,
            "finish": response.finish_reason,
            "pieces": pieces,
            "tokens": [whole.usage.total_tokens, usage.total_tokens],
            "again": (await self.agent().run("and now?", message_history=talk)).output,
            "thinking": [part.content for part in response.parts if part.part_kind == "thinking"],
            "degraded": ["degraded" in str(long), str(long.provider_details)],
            "busy": await self.busy(),
            "errors": {
                "unknown": await self.refusal(lambda: self.agent("nobody").run("hello")),
                "broken": await self.refusal(lambda: self.agent("broken").run("hello")),
                "key": await self.refusal(lambda: self.agent(key="wrong").run("hello")),
                "overflow": await self.refusal(lambda: self.agent().run(OVERFLOW)),
                "streamed overflow": await self.refusal(lambda: self.stream("mix", OVERFLOW)),
                "tools": await self.refusal(lambda: self.agent(output_type=Weather).run("hello")),
                "stream": CASES["silent"]
                and await self.refusal(lambda: self.stream("silent", "hello")),
            },
        }


async def main() -> None:
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("pydantic-ai-slim", "openai"))
    report = {
        "client": " ".join(versions),
        "chat": await Client(OpenAIChatModel).report(),
        "responses": await Client(OpenAIResponsesModel).report(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    asyncio.run(main())
