"""Puts references into a prompt. Pure text; the conversations passed in are never changed.

The text of a reference is not trusted. The text stands between delimiters. Whatever in the text looks
like a delimiter or like a control token of a chat template is defused: its first bracket is replaced.
The prompt does not name the models that wrote the references. The form follows MoA (Wang et al., 2024):
instructions and numbered responses are appended to the system message.
"""

import re
from collections.abc import Sequence

from actors.engine import Message
from configs.schema import References

THINKING = re.compile(r"([`'\"]?)<(/?)think(?:ing)?>", re.IGNORECASE)
"""A tag that begins or ends a block of reasoning. A tag after a quote is only a mention, of which texts
about reasoning models have many."""
TAG = re.compile(r"<(\w+)")
"""Finds the name of the delimiter in a recipe's form of a reference, such as `response`."""
CONTROL = re.compile(r"<(?=\|[\w./-]{1,40}\|>|(?:start|end)_of_turn>)")
"""The bracket that begins a control token of a known chat template. llama.cpp reads such tokens
anywhere in a text, so a reference could end its message and begin a system message."""
HARMLESS = "‹"
"""Replaces a bracket that could begin a delimiter or a control token."""
BRACKETS = "<＜﹤"
"""Characters that a model may read as "<"."""
GAP = r"[\s\u00ad\u200b-\u200f\u2060\ufeff]*"
"""Spaces and invisible characters."""


def with_references(
    messages: Sequence[Message], references: Sequence[str], settings: References
) -> list[Message]:
    """The conversation with the references in it; without references a copy of the conversation.

    Style `system` appends the references to the system message at the start of the conversation, style
    `tail` to the last user message. If there is no such message, a message with the references is added
    there.
    """
    conversation = [Message(role=m["role"], content=m["content"]) for m in messages]
    if not references:
        return conversation
    items = [_item(n, text, settings.item) for n, text in enumerate(references, 1)]
    block = "\n".join([settings.prompt.rstrip(), *items])
    if settings.style == "system":
        where = [n for n, m in enumerate(conversation[:1]) if m["role"] == "system"]
        conversation[:0] = [] if where else [Message(role="system", content=block)]
    else:
        where = [n for n, m in enumerate(conversation) if m["role"] == "user"]
        conversation += [] if where else [Message(role="user", content=block)]
    for n in where[-1:]:
        target = conversation[n]
        conversation[n] = Message(role=target["role"], content=f"{target['content']}\n\n{block}")
    return conversation


def _item(number: int, text: str, item: str) -> str:
    """One reference in the form `item`, which the recipe gives (`references.item`)."""
    tag = TAG.search(item)
    harmless = without_control(text)
    return item.format(number=number, text=_defused(harmless, tag[1]) if tag else harmless)


def without_control(text: str) -> str:
    """The text with every control token of a known chat template defused."""
    return CONTROL.sub(HARMLESS, text)


def _defused(text: str, tag: str) -> str:
    """The text with every delimiter defused: each closing `tag`, and each opening `tag` with a number.

    `Promise<Response>` is code, not a delimiter, and stays.
    """
    pattern = f"[{BRACKETS}](?={GAP}/{GAP}{tag}|{GAP}{tag}[^<>]*\\d)"
    return re.sub(pattern, HARMLESS, text, flags=re.IGNORECASE)


def without_reasoning(text: str) -> str:
    """The text without its blocks of reasoning, which stand in <think> or <thinking> tags.

    1. An opening tag begins a block, and the next closing tag ends it.
    2. A tag after a quote is a mention: it neither begins nor ends a block. A closing tag outside a
       block is a mention as well if an opening tag was mentioned before.
    3. Any other closing tag outside a block removes all text before it, since some chat templates open
       the block in the prompt.
    4. A block that is never closed removes all text after its opening tag if that tag begins a line.
       Within a line the tag is a mention and stays.
    """
    kept: list[str] = []
    at, opened = 0, -1  # where the text to keep begins; where the open block begins, -1 if none is open
    mentioned = False
    for tag in THINKING.finditer(text):
        quote, slash = tag.groups()
        if opened >= 0:
            if slash and not quote:  # 1: the end
                at, opened = tag.end(), -1
        elif quote:  # 2
            mentioned = mentioned or not slash
        elif not slash:  # 1: the beginning
            kept.append(text[at : tag.start()])
            opened = tag.start()
        elif not mentioned:  # 3
            kept.clear()
            at = tag.end()
    if opened < 0:
        kept.append(text[at:])
    elif text[:opened].rpartition("\n")[2].strip():  # 4: within a line
        kept.append(text[opened:])
    return "".join(kept).strip()
