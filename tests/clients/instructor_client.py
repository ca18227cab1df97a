"""A user's program with instructor, which asks for objects; prints what it got as JSON."""

import importlib.metadata
import json
import os
from typing import Any

import instructor
import openai
from pydantic import BaseModel

CASES: dict[str, Any] = json.loads(os.environ["CASES"])
MODES = (
    instructor.Mode.TOOLS,
    instructor.Mode.JSON,
    instructor.Mode.JSON_SCHEMA,
    instructor.Mode.MD_JSON,
)


class Weather(BaseModel):
    """The weather of a town."""

    town: str


def asked(mode: instructor.Mode, **more: Any) -> list[Any]:
    """What instructor says of an answer in a form."""
    access: Any = {"base_url": CASES["url"], "api_key": CASES["key"], "max_retries": 0}
    client = instructor.from_openai(openai.OpenAI(**access), mode=mode)
    fields: Any = {"model": "mix", "messages": CASES["hello"], "max_retries": 0} | more
    try:
        made = client.create(response_model=Weather, **fields)
    except Exception as error:  # the report shows which it was
        return [type(error).__name__, str(error)]
    return [made.town]


def main() -> None:
    report = {
        "client": f"instructor {importlib.metadata.version('instructor')}, openai {openai.__version__}",
        "modes": {mode.name: asked(mode) for mode in MODES},
        "unknown": asked(instructor.Mode.MD_JSON, model="nobody"),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
