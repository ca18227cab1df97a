"""A user's program with LangChain: objects and tools from real models. Prints what it got as JSON."""

import json
import os
from typing import Any

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

CASES: dict[str, Any] = json.loads(os.environ["CASES"])
ASK = "What is the weather in Paris?"


class Weather(BaseModel):  # type: ignore[misc, unused-ignore]
    """The weather of a town."""

    town: str
    is_sunny: bool


@tool  # type: ignore[untyped-decorator, unused-ignore]
def weather(town: str) -> str:
    """Get the weather of a town."""
    return f"18 degrees in {town}"


def main() -> None:
    model = ChatOpenAI(
        model=CASES["name"],
        base_url=CASES["url"],
        api_key="none",
        max_retries=0,
        temperature=0,
        max_tokens=80,
    )
    shapes = {
        method: type(model.with_structured_output(Weather, method=method).invoke(ASK)).__name__
        for method in ("json_schema", "function_calling")
    }
    called = model.bind_tools([weather], tool_choice="any").invoke(ASK)
    results = [weather.invoke(call) for call in called.tool_calls]
    told = model.bind_tools([weather]).invoke([("user", ASK), called, *results])
    gathered: Any = None
    for chunk in model.bind_tools([weather], tool_choice="weather").stream(ASK):
        gathered = chunk if gathered is None else gathered + chunk
    report = {
        "shapes": shapes,
        "called": [[call["name"], call["args"]] for call in called.tool_calls],
        "results": [result.content for result in results],
        "told": told.text,
        "streamed": [[call["name"], call["args"]] for call in gathered.tool_calls],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
