"""Rewrites a conversation into the form that a model's chat template takes.

Many templates raise an error for a conversation that other templates take: those of Gemma 2 and Mistral
7B know no system role, those of Gemma, Mistral and Llama 2 want users and assistant to alternate, and
that of Qwen 3.5 wants the system message at the beginning. The error's text says what is wrong, in the
template's own words. So the same conversation is sent again in another form, and the form is remembered
for the model. All engines use this file.
"""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, TypeVar

from actors.engine import Delta, Message
from configs.errors import TemplateRefused

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
REFUSES = "the model's chat template does not take this conversation"
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
    """What the template says in an error; the whole error if the template's words are not marked."""
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
    refused = list(form.apply(messages))
    for wanted in _wanted(words_of_template(error), is_certain=is_of_template(error)):
        other = form | wanted
        if list(other.apply(messages)) != refused:
            return other
    return None


def _wanted(words: str, *, is_certain: bool) -> Iterator[Form]:
    """The forms that the words may ask for, the most likely one first.

    Args:
        is_certain: whether the words are a template's. Then words that are not known are followed by
            all forms too.
    """
    if ALTERNATE.search(words):
        yield Form(alternates=True)
        yield Form("first", alternates=True)
        yield Form("nowhere", alternates=True)
    elif NO_USER.search(words):
        yield Form(needs_user=True)
    elif SYSTEM.search(words) or is_certain:
        if PLACE.search(words):
            yield Form("first")
        yield Form("nowhere")
        yield Form("nowhere", alternates=True)


T = TypeVar("T")


class TakenForm:
    """The form that one model's chat template takes, as far as it is known by now."""

    def __init__(self) -> None:
        self.form = Form()
        """What the template has taken."""

    async def run(
        self, messages: Sequence[Message], attempt: Callable[[Sequence[Message]], Awaitable[T]]
    ) -> T:
        """Do something with a conversation, and again in other forms that its template may take.

        Args:
            attempt: raises TemplateRefused if the template does not take the conversation.

        Raises:
            TemplateRefused: the template takes no form of the conversation that is known.
        """
        form = self.form
        while True:
            try:
                done = await attempt(form.apply(messages))
            except TemplateRefused as refusal:
                form = self._next(refusal, form, messages)
            else:
                self.form |= form
                return done

    async def stream(
        self,
        messages: Sequence[Message],
        attempt: Callable[[Sequence[Message]], AsyncGenerator[Delta]],
    ) -> AsyncGenerator[Delta]:
        """As `run`, for an answer. The template refuses a conversation before the first delta."""
        form = self.form
        while True:
            try:
                async with aclosing(attempt(form.apply(messages))) as deltas:
                    async for delta in deltas:
                        yield delta
            except TemplateRefused as refusal:
                form = self._next(refusal, form, messages)
            else:
                self.form |= form
                return

    def _next(self, refusal: TemplateRefused, form: Form, messages: Sequence[Message]) -> Form:
        other = other_form(refusal.message, form, messages)
        if other is None:
            raise refusal
        return other


def refusal(error: str, model: str) -> TemplateRefused:
    """The error of a conversation that the chat template refuses, in the template's words."""
    words = " ".join(words_of_template(error).split())
    message = f"{REFUSES} (Jinja exception: {words})"
    return TemplateRefused(message, model=model, param="messages")


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """Move system messages into the next user message, for chat templates without a system role.

    System messages that no user message follows become a user message at the end, or before the
    assistant's message that ends the conversation: the answer continues that message.
    """
    end = len(messages)
    while end and messages[end - 1]["role"] == "assistant":
        end -= 1
    folded: list[Message] = []
    held: list[str] = []
    for message in messages[:end]:
        if message["role"] == "system":
            held.append(message["content"])
        elif message["role"] == "user" and held:
            folded.append({"role": "user", "content": "\n\n".join([*held, message["content"]])})
            held = []
        else:
            folded.append(message)
    if held:
        folded.append({"role": "user", "content": "\n\n".join(held)})
    return [*folded, *messages[end:]]


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
