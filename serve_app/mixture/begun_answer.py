"""A conversation whose last message is the assistant's: the beginning of an answer, to be continued.

Engines continue such a message (`Engine.stream`). In a mixture only the model that writes the answer
continues it. A proposal is a whole answer, so proposers read the conversation without that message.
"""

from collections.abc import Sequence

from actors.engine import Message


def without_begun_answer(messages: Sequence[Message]) -> list[Message]:
    """The conversation without messages of the assistant at its end."""
    end = len(messages)
    while end and messages[end - 1]["role"] == "assistant":
        end -= 1
    return list(messages[:end])
