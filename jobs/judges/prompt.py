"""The prompts that judges read: templates from text files, filled with texts that nobody vouches for.

What is filled in is data. Marks of chat templates in it are defused, as in references, and so is
whatever looks like one of the template's own tags, so that no answer can end its own quotation. A
template without tags, such as alpaca_eval's original, gets texts as they are but for those marks.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.engine import Message
from configs.errors import UserError
from jobs.records import Row
from serve_app.mixture.references import BRACKETS, GAP, HARMLESS, without_control

FOLDER = Path(__file__).parent / "prompts"
BLOCK = re.compile(r"<\|im_start\|>(system|user|assistant)[^\n]*\n(.*?)<\|im_end\|>", re.DOTALL)
PLACEHOLDER = re.compile(r"\{(\w+)\}")
END_TAG = re.compile(r"</(\w+)>")


class PromptError(UserError):
    """A prompt file cannot be used; the message says what it lacks."""


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """A template: messages with placeholders. label: what people call it."""

    label: str
    messages: tuple[Message, ...]

    def filled(self, **texts: str) -> list[Message]:
        """The template with these texts in their places; braces that are no placeholder stay."""
        whole = "\n".join(m["content"] for m in self.messages)
        tags = "|".join(sorted(set(END_TAG.findall(whole))))
        harmless = {name: _defused(text, tags) for name, text in texts.items()}

        # In one pass, so that a text cannot bring a placeholder of its own.
        def text_of(place: re.Match[str]) -> str:
            return harmless.get(place[1], place[0])

        return [
            Message(role=m["role"], content=PLACEHOLDER.sub(text_of, m["content"]))
            for m in self.messages
        ]


def from_text(label: str, text: str, needs: Sequence[str]) -> JudgePrompt:
    """A template from plain text, one user message, or from ChatML blocks as alpaca_eval writes them.

    Raises:
        PromptError: a placeholder that is needed is missing, or text stands outside of the blocks.
    """
    messages = [Message(role="user", content=text.strip())]
    if "<|im_start|>" in text:
        messages = [
            Message(role=role, content=content.strip()) for role, content in BLOCK.findall(text)
        ]
        if outside := BLOCK.sub("", text).strip():
            message = f"judge prompt {label!r} has text outside of its message blocks: {outside[:60]!r}"
            raise PromptError(message)
    return checked(JudgePrompt(label, tuple(messages)), needs)


def checked(prompt: JudgePrompt, needs: Sequence[str]) -> JudgePrompt:
    """The prompt, if it has all placeholders.

    Raises:
        PromptError: it has not.
    """
    has = {name for m in prompt.messages for name in PLACEHOLDER.findall(m["content"])}
    if missing := [name for name in needs if name not in has]:
        lacks, wants = (", ".join(f"{{{name}}}" for name in names) for names in (missing, needs))
        raise PromptError(f"judge prompt {prompt.label!r} lacks {lacks}; it needs {wants}")
    return prompt


def from_file(path: Path, needs: Sequence[str]) -> JudgePrompt:
    """The template in a text file, labelled with the file's name.

    Raises:
        PromptError: the file cannot be read, or is no such template.
    """
    return from_text(path.stem, read(path), needs)


def read(path: Path) -> str:
    """The text of a prompt file.

    Raises:
        PromptError: it cannot be read as UTF-8.
    """
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"prompt file {str(path)!r} cannot be read: {error}") from error


def judge_name(model: str, prompts: Sequence[JudgePrompt], *more: str | int) -> str:
    """A judge's name, `MODEL:PROMPT-HASH`: another prompt is another judge, and so is whatever else
    determines its verdicts."""
    determines = json.dumps([[list(p.messages) for p in prompts], *more], sort_keys=True)
    digest = hashlib.sha256(determines.encode()).hexdigest()
    return f"{model}:{prompts[0].label}-{digest[:8]}"


def first_question(row: Row) -> str:
    """What the row asks first, with the messages before it if there are any."""
    if not row.before:
        return row.turns[0]
    before = [f"{m['role']}: {m['content']}" for m in row.before]
    return "\n\n".join([*before, f"user: {row.turns[0]}"])


def _defused(text: str, tags: str) -> str:
    harmless = without_control(text)
    if not tags:
        return harmless
    return re.sub(rf"[{BRACKETS}](?={GAP}/?{GAP}(?:{tags})\b)", HARMLESS, harmless, flags=re.IGNORECASE)
