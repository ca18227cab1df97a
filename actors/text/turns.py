"""Rewrites a conversation into the form that a model's chat template takes.

Many templates raise an error for a conversation that other templates take: those of Gemma 2 and Mistral
7B know no system role, those of Gemma, Mistral and Llama 2 want users and assistant to alternate, and
that of Qwen 3.5 wants the system message at the beginning. The error's text says what is wrong, in the
template's own words. So the same conversation is sent again in another form, and the form is remembered
for the model. All engines use this file.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from actors.engine import Message

OPENING = "Hello."
"""What a user is taken to have said before a conversation that the assistant begins, where a template
wants a user to begin."""
ALTERNATE = re.compile(
    r"alternat|interleave|successive|consecutive|in a row|(start|begin)s? with an? user"
    r"|first message must be .{0,20}user|must follow|two .{0,30}same role",
    re.IGNORECASE,
)
"""Words of templates and servers that want users and assistant to alternate."""
NO_USER = re.compile(r"no user (query|message|turn)|at least one user|user message is required", re.I)
"""Words of templates that want at least one message of a user."""
SYSTEM = re.compile(
    r"(system|developer)[ _-](role|message|prompt|instruction)"
    r"|\brole\b.{0,40}\b(system|developer)\b|\b(system|developer)\b\W{0,3}.{0,40}\brole"
    r"|only user(,| and) assistant\b.{0,20}roles",
    re.IGNORECASE | re.DOTALL,
)
"""Words of templates and servers that do not take a system message, or not where it stands."""
PLACE = re.compile(r"beginning|first|at the (start|top)|\bstart\b|\bafter\b", re.IGNORECASE)
"""Words of templates that take a system message at the beginning."""
RAISED = re.compile(r"(?:jinja\w*\s+exception|templateerror)\s*:\s*", re.IGNORECASE)
"""What stands before the words of a template. llama.cpp also quotes the template's source before it."""
MOST_WORDS = 2000
"""How many characters of an error are looked at."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a chat template takes. By default all conversations."""

    system: Literal["anywhere", "first", "nowhere"] = "anywhere"
    """Where a system message may stand. One that may not stand where it does goes into the next message
    of the user."""
    alternates: bool = False
    """Whether users and assistant have to alternate, and a user begins."""
    needs_user: bool = False
    """Whether there has to be a message of a user."""

    def apply(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The conversation in this form."""
        if self == Form():
            return messages
        head, rest = _leading_system(messages) if self.system == "first" else ([], list(messages))
        has_user = any(message["role"] == "user" for message in rest)
        if self.needs_user and not has_user:
            head, rest = [], [*head, *rest]
        if self.system != "anywhere" or (self.needs_user and not has_user):
            rest = fold_system(rest)
        if self.alternates:
            rest = list(_alternating(rest))
        return [*head, *rest]

    def __or__(self, other: "Form") -> "Form":
        """The form that both take."""
        order = ("anywhere", "first", "nowhere")
        return Form(
            max(self.system, other.system, key=order.index),
            self.alternates or other.alternates,
            self.needs_user or other.needs_user,
        )


def words_of_template(error: str) -> str:
    """What the template says in an error of a server or library; the whole error if that is not marked."""
    found = list(RAISED.finditer(error))
    return (error[found[-1].end() :] if found else error).strip()[:MOST_WORDS]


def is_of_template(error: str) -> bool:
    """Whether an error comes from a chat template that refuses the conversation."""
    return RAISED.search(error) is not None


def other_form(error: str, form: Form, messages: Sequence[Message]) -> Form | None:
    """Another form in which a refused conversation may be taken; None if there is none.

    Args:
        error: the words of the refusal.
        form: the form of the refused conversation.
        messages: the conversation, before any rewriting.
    """
    words = words_of_template(error)
    refused = list(form.apply(messages))
    for wanted in _wanted(words):
        other = form | wanted
        if list(other.apply(messages)) != refused:
            return other
    return None


def _wanted(words: str) -> Iterator[Form]:
    """The forms that the words may ask for, the most likely one first."""
    if ALTERNATE.search(words):
        yield Form(alternates=True)
        yield Form("first", alternates=True)
        yield Form("nowhere", alternates=True)
    elif NO_USER.search(words):
        yield Form(needs_user=True)
    elif SYSTEM.search(words):
        if PLACE.search(words):
            yield Form("first")
        yield Form("nowhere")
        yield Form("nowhere", alternates=True)


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """Move system messages into the next user message, for chat templates without a system role.

    System messages that no user message follows become a user message at the end.
    """
    folded: list[Message] = []
    held: list[str] = []
    for message in messages:
        if message["role"] == "system":
            held.append(message["content"])
        elif message["role"] == "user" and held:
            folded.append({"role": "user", "content": "\n\n".join([*held, message["content"]])})
            held = []
        else:
            folded.append(message)
    return [*folded, {"role": "user", "content": "\n\n".join(held)}] if held else folded


def _leading_system(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """The system messages at the beginning as one message, and the rest."""
    count = next((n for n, m in enumerate(messages) if m["role"] != "system"), len(messages))
    text = "\n\n".join(message["content"] for message in messages[:count])
    head = [Message(role="system", content=text)] if count else []
    return head, list(messages[count:])


def _alternating(messages: Sequence[Message]) -> Iterator[Message]:
    """The messages with neighbours of one side joined, and with a user at the beginning."""
    held: Message | None = None
    for message in messages:
        if held is None and message["role"] == "assistant":
            yield Message(role="user", content=OPENING)
        if held is not None and held["role"] == message["role"]:
            both = "\n\n".join([held["content"], message["content"]])
            held = Message(role=message["role"], content=both)
            continue
        if held is not None:
            yield held
            if held["role"] == "system" and message["role"] == "assistant":
                yield Message(role="user", content=OPENING)
        held = message
    if held is not None:
        yield held

