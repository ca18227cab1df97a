"""A user's program with instructor: objects from real models, in its ways. Prints them as JSON."""

import json
import os
from typing import Any

import instructor
import openai
from pydantic import BaseModel

CASES: dict[str, Any] = json.loads(os.environ["CASES"])
MODES = (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA)


class Weather(BaseModel):
    """The weather of a town."""

    town: str
    degrees: int


def main() -> None:
    report: dict[str, Any] = {}
    for mode in MODES:
        access: Any = {"base_url": CASES["url"], "api_key": "none", "max_retries": 0}
        client = instructor.from_openai(openai.OpenAI(**access), mode=mode)
        said: Any = [{"role": "user", "content": "It is 18 degrees in Paris."}]
        made = client.create(
            response_model=Weather,
            model=CASES["name"],
            messages=said,
            max_retries=0,
            max_tokens=80,
            temperature=0,
        )
        report[mode.name] = made.model_dump()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
