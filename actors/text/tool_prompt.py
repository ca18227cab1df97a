"""How a model that calls tools in its text is told of the tools, and how earlier calls are shown.

The form is that of the Hermes models of Nous Research, as the chat template of Qwen 2.5 has it: most
open models have seen this form. Only its marks are others. `<tool_call>` is a control token of some
models, which texts of clients must not have, and which engines leave out of answers. The form works
with every chat template, because nothing but text enters the prompt.
"""

import json
from collections.abc import Sequence

from actors.engine import Message
from configs.tool_use import ToolUse

BEGIN, END = "<call_tool>", "</call_tool>"
"""The marks around a call."""
ABOUT = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{signatures}
</tools>

For each function call, return a json object with function name and arguments within \
<call_tool></call_tool> XML tags:
<call_tool>
{{"name": <function-name>, "arguments": <args-json-object>}}
</call_tool>"""
ADVICE = (
    "The responses above are advice from assistants that cannot call functions. Where a function gives "
    "what they guess or do not know, call the function now, and write nothing else."
)
"""What is said where the prompt has references."""
FREE = (
    "Call a function only if its result is missing to answer the user. Otherwise answer in plain text, "
    "without a call."
)
REQUIRED = "Your next message has to be a call of one of these functions."
REQUIRED_ONE = "Your next message has to be a call of the function {name}."
SINGLE = "Call one function at a time."


def with_tools(messages: Sequence[Message], use: ToolUse, *, has_references: bool) -> list[Message]:
    """The conversation with the tools in its system message, which is made if there is none.

    Args:
        messages: the conversation, with the references in it.
        use: the tools.
        has_references: whether there are references.
    """
    parts = [ABOUT.format(signatures="\n".join(_signatures(use)))]
    if has_references:
        parts.append(ADVICE)
    if use.choice == "auto":
        parts.append(FREE)
    else:
        one = REQUIRED_ONE.format(name=use.names[0])
        parts.append(one if len(use.tools) == 1 else REQUIRED)
    if not use.parallel:
        parts.append(SINGLE)
    told = "\n\n".join(parts)
    if messages and messages[0]["role"] == "system":
        first = Message(role="system", content=f"{messages[0]['content']}\n\n{told}")
        return [first, *messages[1:]]
    return [Message(role="system", content=told), *messages]


def _signatures(use: ToolUse) -> list[str]:
    return [
        json.dumps(
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.schema_of_arguments,
                },
            },
            ensure_ascii=False,
        )
        for tool in use.tools
    ]


def call_text(name: str, arguments: str) -> str:
    """A call as the model would have written it.

    Args:
        name: name of the tool.
        arguments: the arguments as JSON. What is no JSON object is shown as it is.
    """
    return f'{BEGIN}\n{{"name": {json.dumps(name)}, "arguments": {arguments or "{}"}}}\n{END}'


def result_text(text: str) -> str:
    """The result of a call as the model expects it."""
    return f"<tool_result>\n{text}\n</tool_result>"
