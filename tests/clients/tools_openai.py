"""A user's program with OpenAI's client: objects, tools and their results from real models, in both
APIs. Prints what it got as JSON."""

import json
import os
from typing import Annotated, Any, Literal

import openai
from pydantic import BaseModel, Field, create_model

CASES: dict[str, Any] = json.loads(os.environ["CASES"])
Text = Annotated[str, Field(max_length=12)]
Number = Annotated[int, Field(ge=0, le=99)]
Share = Annotated[float, Field(ge=0, le=2.5)]
Texts = Annotated[list[Text], Field(max_length=2)]
Level = Literal["low", "high"]


class Place(BaseModel):
    """Where something is."""

    town: Text
    floor: Annotated[int, Field(ge=-2, le=60)] | None


KINDS: tuple[Any, ...] = (Text, Number, bool, Level, Texts, Share, Place, Text | None)
FIELDS: dict[str, Any] = {f"field_{n}": (KINDS[n % len(KINDS)], ...) for n in range(20)}
Form = create_model("Form", **FIELDS)
"""An object of 20 fields, none of which can be long."""
FORM = [{"role": "user", "content": "Fill in the form. Keep every value short."}]
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]


class Weather(BaseModel):
    """Get the weather of a town."""

    town: str


def main() -> None:
    client = openai.OpenAI(base_url=CASES["url"], api_key="none", max_retries=0, timeout=120)
    chat: Any = client.chat.completions
    asked: dict[str, Any] = {"model": CASES["name"], "temperature": 0}
    form = chat.parse(**asked, messages=FORM, response_format=Form, max_tokens=500)
    tool = openai.pydantic_function_tool(Weather)
    forced = chat.parse(**asked, messages=ASK, tools=[tool], tool_choice="required", max_tokens=80)
    message = forced.choices[0].message
    talk = [*ASK, message.model_dump(exclude_none=True)]
    for call in message.tool_calls:
        talk.append({"role": "tool", "tool_call_id": call.id, "content": "18 degrees and sunny"})
    told = chat.create(**asked, messages=talk, tools=[tool], max_tokens=60).choices[0]
    with chat.stream(
        **asked, messages=ASK, tools=[tool], tool_choice="required", max_tokens=80
    ) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_completion().choices[0]
    free = chat.create(**asked, messages=ASK, tools=[tool], max_tokens=80).choices[0]
    responses: Any = client.responses
    flat = {"type": "function", "strict": True, **tool["function"]}
    item = responses.create(
        model=CASES["name"],
        input="What is the weather in Paris?",
        tools=[flat],
        tool_choice="required",
        max_output_tokens=80,
    ).output[-1]
    parsed = responses.parse(
        model=CASES["name"], input="Which town?", text_format=Weather, max_output_tokens=80
    )
    report = {
        "form": len(form.choices[0].message.parsed.model_dump()),
        "forced": [call.function.parsed_arguments.town for call in message.tool_calls],
        "forced finish": forced.choices[0].finish_reason,
        "told": told.message.content,
        "streamed": [call.function.parsed_arguments.town for call in streamed.message.tool_calls],
        "pieces": kinds.count("tool_calls.function.arguments.delta"),
        "free": [call.function.arguments for call in free.message.tool_calls or ()],
        "free text": free.message.content,
        "item": [item.type, item.name, json.loads(item.arguments)],
        "parsed": parsed.output_parsed.town,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
