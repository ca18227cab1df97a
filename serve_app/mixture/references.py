"""Puts references into a prompt. Pure text; the conversations passed in are never changed.

The text of a reference is not trusted. The text stands between delimiters. Whatever in the text looks
like a delimiter is defused: its first bracket is replaced. The control tokens of the model that reads
the prompt are made harmless by its engine, which knows them (`actors/text/control_tokens.py`).
The prompt does not name the models that wrote the references. The form follows MoA (Wang et al., 2024):
instructions and numbered responses are appended to the system message.
"""

import re
from collections.abc import Sequence
from functools import cache

from actors.engine import Message
from actors.text.look_alikes import ZERO_WIDTH, as_it_looks
from configs.schema import References
from serve_app.mixture.begun_answer import without_begun_answer

TAG = re.compile(r"<(\w+)")
"""Finds the name of the delimiter in a recipe's form of a reference, such as `response`."""
HARMLESS = "‹"
"""Replaces a bracket that could begin a delimiter."""
BETWEEN = f"{ZERO_WIDTH}*"
"""What may be between the letters of a name."""
GAP = f"[\\s{ZERO_WIDTH}]*"
"""Spaces and characters that nobody sees."""
ENTITY = "&(?=(?:lt|#0*60|#x0*3c);{name})"
"""A bracket as HTML writes it."""


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
    return item.format(number=number, text=_defused(text, tag[1]) if tag else text)


def _defused(text: str, tag: str) -> str:
    """The text with every delimiter defused: each closing `tag`, and each opening `tag` with a number.

    What looks like a delimiter is one, whichever characters it is made of (`look_alikes.py`).
    `Promise<Response>` is code, not a delimiter, and stays.
    """
    shape = as_it_looks(text)
    kept, at = [], 0
    for bracket in _delimiter(as_it_looks(tag)).finditer(shape):
        kept += [text[at : bracket.start()], HARMLESS]
        at = bracket.end()
    return "".join([*kept, text[at:]])


@cache
def _delimiter(tag: str) -> re.Pattern[str]:
    """Finds the bracket of each delimiter in the shape of a text."""
    name = BETWEEN.join(map(re.escape, tag))
    closing = f"{GAP}/[/\\s{ZERO_WIDTH}]*{name}"
    # What is between name and number ends at the next bracket, so that no text is read twice.
    opening = f"{GAP}{name}[^<>{{end}}]*\\d"
    plain = f"<(?={closing}|{opening.format(end='')})"
    entity = ENTITY.format(name=f"(?:{closing}|{opening.format(end='&')})")
    return re.compile(f"{plain}|{entity}", re.IGNORECASE)
