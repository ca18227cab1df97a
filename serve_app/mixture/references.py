"""Puts references into a prompt. Pure text; the conversations passed in are never changed.

The text of a reference is not trusted. The text stands between delimiters. Everything in the text that
looks like a delimiter is defused (`actors/text/delimiters.py`). The control tokens of the model that
reads the prompt are made harmless by its engine, which knows them (`actors/text/control_tokens.py`).
The prompt does not name the models that wrote the references. The form follows MoA (Wang et al., 2024):
instructions and numbered responses are appended to the system message (style `system`).
"""

import re
from collections.abc import Sequence

from actors.engine import Message
from actors.text.delimiters import defuse
from configs.schema import References
from serve_app.mixture.begun_answer import without_begun_answer

TAG = re.compile(r"<(\w+)")
"""Finds the name of the delimiter in a recipe's form of a reference, such as `response`."""


def with_references(
    messages: Sequence[Message], references: Sequence[str], settings: References, note: str = ""
) -> list[Message]:
    """The conversation with the references in it, and behind them the note; without references a copy
    of the conversation.

    Style `system` appends the references to the system message at the start of the conversation, style
    `tail` to the last user message. If there is no such message, a message with the references is added
    there, and before an answer that the conversation begins.
    """
    conversation = [Message(role=m["role"], content=m["content"]) for m in messages]
    if not references:
        return conversation
    items = [_item(n, text, settings.item) for n, text in enumerate(references, 1)]
    block = "\n".join([settings.prompt.rstrip(), *items, *(["", note] if note else [])])
    if settings.style == "system":
        where = [n for n, m in enumerate(conversation[:1]) if m["role"] == "system"]
        conversation[:0] = [] if where else [Message(role="system", content=block)]
    else:
        where = [n for n, m in enumerate(conversation) if m["role"] == "user"]
        end = len(without_begun_answer(conversation))
        conversation[end:end] = [] if where else [Message(role="user", content=block)]
    for n in where[-1:]:
        target = conversation[n]
        conversation[n] = Message(role=target["role"], content=f"{target['content']}\n\n{block}")
    return conversation


def _item(number: int, text: str, item: str) -> str:
    """One reference in the form `item`, which the recipe gives (`references.item`)."""
    tag = TAG.search(item)
    harmless = defuse(text, tag.groups(), numbered=True) if tag else text
    return item.format(number=number, text=harmless)
