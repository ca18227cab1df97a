"""References into a prompt: pure text. Conversations that come in are never changed.

Reference text is untrusted: it is delimited, what looks like a delimiter or like a control token of a
chat template inside it is defused, and no model is named. The form follows MoA (Wang et al., 2024):
instructions and numbered responses appended to the system message.
"""

import re
from collections.abc import Sequence

from actors.engine import Message
from configs.schema import References

# A quote before a tag makes it a mention: text about reasoning models is full of them.
THINKING = re.compile(r"([`'\"]?)<(/?)think(?:ing)?>", re.IGNORECASE)
TAG = re.compile(r"<(\w+)")
# Marks of known chat templates. llama.cpp reads them as control tokens wherever they stand, so a
# reference could otherwise end its turn and begin a system message.
CONTROL = re.compile(r"<(?=\|[\w./-]{1,40}\|>|(?:start|end)_of_turn>)")
HARMLESS = "‹"  # in place of a bracket that could begin a mark
BRACKETS = "<＜﹤"  # those that a model may read as "<"
GAP = r"[\s\u00ad\u200b-\u200f\u2060\ufeff]*"  # spaces, and characters that nobody sees


def with_references(
    messages: Sequence[Message], references: Sequence[str], settings: References
) -> list[Message]:
    """The conversation with the references in it; without any, an equal copy of it.

    Style `system` makes a system message where the conversation does not begin with one, and `tail`
    a user message where there is none.
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
    tag = TAG.search(item)
    harmless = without_control(text)
    return item.format(number=number, text=_defused(harmless, tag[1]) if tag else harmless)


def without_control(text: str) -> str:
    """The text with marks of chat templates made harmless."""
    return CONTROL.sub(HARMLESS, text)


def _defused(text: str, tag: str) -> str:
    """The text with every end of `tag`, and every numbered beginning, made harmless.

    `Promise<Response>` is code, not a delimiter, and stays.
    """
    pattern = f"[{BRACKETS}](?={GAP}/{GAP}{tag}|{GAP}{tag}[^<>]*\\d)"
    return re.sub(pattern, HARMLESS, text, flags=re.IGNORECASE)


def without_reasoning(text: str) -> str:
    """The text without what stands in <think> or <thinking> tags.

    1. A block that is never closed takes all that follows, if it begins a line. Within a line it is a
       mention, as is any tag in quotes.
    2. An end without a beginning takes all before it: some chat templates open the block in the prompt.
    """
    kept: list[str] = []
    at, opened, mentioned = 0, -1, False
    for tag in THINKING.finditer(text):
        quote, slash = tag.groups()
        if opened >= 0:
            if slash and not quote:
                at, opened = tag.end(), -1
        elif quote:
            mentioned = mentioned or not slash
        elif not slash:
            kept.append(text[at : tag.start()])
            opened = tag.start()
        elif not mentioned:
            kept.clear()
            at = tag.end()
    if opened < 0:
        kept.append(text[at:])
    elif text[:opened].rpartition("\n")[2].strip():
        kept.append(text[opened:])
    return "".join(kept).strip()
