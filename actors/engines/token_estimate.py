"""Estimates tokens of texts and conversations, for servers whose tokenizer is not known."""

from collections.abc import Sequence
from math import ceil

from actors.engine import Message

TEMPLATE_TOKENS = 8
"""Tokens that a chat template adds around one message: the most among the templates that we know."""


def prompt_ends(messages: Sequence[Message], characters_per_token: float) -> list[int]:
    """Estimate where the tokens of a conversation end, those of its chat template included."""
    text = "".join([message["content"] for message in messages])
    template = [len(text)] * (TEMPLATE_TOKENS * (len(messages) + 1))
    return estimated_ends(text, characters_per_token) + template


def estimated_ends(text: str, characters_per_token: float) -> list[int]:
    """Estimate where the tokens of a text end, in characters, without knowing the tokenizer.

    A token holds `characters_per_token` ASCII characters. Every other character counts as a whole
    token, because many scripts need a token per character.
    """
    ends: list[int] = []
    filled = 0.0
    if characters_per_token >= 1 and text.isascii():  # nearly all texts: saves the loop
        whole = int(len(text) / characters_per_token)
        ends = [min(ceil(n * characters_per_token), len(text)) for n in range(1, whole + 1)]
    else:
        for n, character in enumerate(text, 1):
            filled += 1 if character.isascii() else characters_per_token
            if complete := int(filled // characters_per_token):
                # A character of several tokens is complete only with its last token, so a cut at one of
                # the earlier tokens must leave the character out.
                ends += [n - 1] * (complete - 1) + [n]
                filled -= complete * characters_per_token
    return ends if ends[-1:] == [len(text)] or not text else [*ends, len(text)]
