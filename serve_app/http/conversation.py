"""Makes the conversation that models read from the messages of a request.

The chat templates of models differ in what they take. The conversation keeps to what nearly all of them
take: each message is a text, also where it calls tools or gives their results.
"""

import re
from collections.abc import Iterator, Sequence

from actors.engine import Message
from actors.text.tool_prompt import result_text
from configs.errors import BadRequest
from serve_app.http.messages import ChatMessage

THOUGHT = re.compile(r"\s*<(think|thinking)>.*?</\1>\s*", re.DOTALL)
"""A thought at the beginning of a message, in the marks in which pydantic-ai and others send it back.
A model that reads earlier thoughts begins to write thoughts, even if it never thinks otherwise."""


def conversation(messages: Sequence[ChatMessage], *, in_calls: bool = False) -> list[Message]:
    """The messages as engines take them.

    1. Calls of tools stand behind the text of the assistant, each on a line of its own.
    2. Results of tools are a user's message. Results in a row are one message, because many chat
       templates take no two messages of one side in a row.
    3. If no message is the user's, the last system message is read as the user's: many chat templates
       refuse a conversation without a user.
    4. Messages of the assistant at the end are one message, which the answer continues. If it is empty,
       there is nothing to continue, and it is left out.

    Args:
        in_calls: whether the conversation is for a model that calls tools in its text. If so, calls and
            results have the form in which such a model writes and expects them
            (`actors/text/tool_prompt.py`). Otherwise they are in prose.

    Raises:
        BadRequest: a message has no content, the last message calls tools and their results are
            missing, or there is nothing to answer.
    """
    turns = list(_turns(messages, in_calls=in_calls))
    last = len(messages) - 1
    if messages[last].calls(f"messages.{last}"):
        where = f"messages.{last}.tool_calls"
        raise BadRequest(f"{where}: the results of these calls are missing", param=where)
    begun: list[str] = []
    while turns and turns[-1]["role"] == "assistant":  # 4
        begun.insert(0, turns.pop()["content"])
    if not any(turn["content"].strip() for turn in turns):
        empty = not any(text.strip() for text in begun)
        message = "all messages are empty" if empty else "there is no message that could be answered"
        raise BadRequest(message, param="messages")
    if not any(turn["role"] == "user" for turn in turns):  # 3
        n = max((n for n, turn in enumerate(turns) if turn["role"] == "system"), default=None)
        if n is not None:
            turns[n] = Message(role="user", content=turns[n]["content"])
    if text := "\n\n".join(text for text in begun if text.strip()):
        turns.append(Message(role="assistant", content=text))
    return turns


def _text(messages: Sequence[ChatMessage], n: int) -> str:
    """The text of a message. An earlier answer of the assistant loses its thought. The last message
    keeps it: the model continues that message, and some clients write a thought that has ended into
    it, so that the model does not think."""
    text = messages[n].text(f"messages.{n}")
    is_earlier = messages[n].role == "assistant" and n < len(messages) - 1
    return THOUGHT.sub("", text, count=1) if is_earlier and THOUGHT.match(text) else text


def _turns(messages: Sequence[ChatMessage], *, in_calls: bool) -> Iterator[Message]:
    """The messages one by one, after steps 1 and 2 of `conversation`."""
    names: dict[str, str] = {}
    """Names of the tools by the ids of their calls."""
    results: list[str] = []
    for n, message in enumerate(messages):
        text = _text(messages, n)
        if message.role in ("tool", "function"):  # 2
            name = names.get(message.tool_call_id or "", message.name or "")
            told = f"The tool {name} returned:\n{text}" if name else f"A tool returned:\n{text}"
            results.append(result_text(text) if in_calls else told)
            continue
        if results:
            yield Message(role="user", content="\n\n".join(results))
            results = []
        if message.role == "assistant":
            calls = message.calls(f"messages.{n}")
            names |= {call: function.name for call, function in calls if call is not None}
            lines = "\n".join(function.read(in_calls=in_calls) for _, function in calls)  # 1
            was_thought = not text and bool(message.text(f"messages.{n}"))
            text = "\n\n".join(part for part in (text, lines) if part)
            if was_thought and not text:  # nothing but a thought: the models read no part of it
                continue
        role = "system" if message.role == "developer" else message.role
        yield Message(role=role, content=text)
    if results:
        yield Message(role="user", content="\n\n".join(results))
