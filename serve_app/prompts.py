"""References into a prompt: pure text. Conversations that come in are never changed.

Reference text is untrusted: it is delimited, what looks like a delimiter inside it is defused, and no
model is named. The form follows MoA (Wang et al., 2024): instructions and numbered responses appended
to the system message.
"""

import re
from collections.abc import Sequence

from actors.engine import Message
from configs.schema import References

THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL)
THINKING_END = re.compile(r"\A.*</think(?:ing)?>", re.DOTALL)
DELIMITER = re.compile(r"<(?=/?\s*response\b)", re.IGNORECASE)


def with_references(
    messages: Sequence[Message], references: Sequence[str], settings: References
) -> list[Message]:
    """The conversation with the references in it; without any, an equal copy of it."""
    conversation = [Message(role=m["role"], content=m["content"]) for m in messages]
    if not references:
        return conversation
    items = [_item(n, text, settings) for n, text in enumerate(references, 1)]
    block = "\n".join([settings.prompt.rstrip(), *items])
    if settings.style == "tail":
        where = max(n for n, m in enumerate(conversation) if m["role"] == "user")
    elif conversation[0]["role"] == "system":
        where = 0
    else:
        return [Message(role="system", content=block), *conversation]
    target = conversation[where]
    conversation[where] = Message(role=target["role"], content=f"{target['content']}\n\n{block}")
    return conversation


def _item(number: int, text: str, settings: References) -> str:
    delimited = "<response" in settings.item
    return settings.item.format(number=number, text=DELIMITER.sub("‹", text) if delimited else text)


def without_reasoning(text: str) -> str:
    """The text without <think> blocks; one that is never closed takes all that follows it.

    Some chat templates open the block in the prompt, so that only its end stands in the text.
    """
    return THINKING_END.sub("", THINKING.sub("", text)).strip()
