"""The prompts for judges: templates from text files, and how untrusted texts are put into them.

Questions and answers are data that nobody vouches for. Where the template quotes a text by tags,
everything in the text that looks like one of these tags is defused, so that no answer can end its own
quotation. A template without tags, such as alpaca_eval's original, receives the texts as they are. The
judge's engine makes control tokens harmless, as in every message.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.engine import Message
from actors.text.delimiters import defuse
from configs.errors import UserError
from jobs.records import Row

FOLDER = Path(__file__).parent / "prompts"
"""The folder of the project's own prompts."""
BLOCK = re.compile(r"<\|im_start\|>(system|user|assistant)[^\n]*\n(.*?)<\|im_end\|>", re.DOTALL)
"""A message in ChatML, the form of alpaca_eval's prompts: its role and its content."""
PLACEHOLDER = re.compile(r"\{(\w+)\}")
"""A placeholder in a template, by its name."""
END_TAG = re.compile(r"</(\w+)>")
"""A tag of a template that ends a quotation. Tags of the same name in texts are defused."""


class PromptError(UserError):
    """A prompt file cannot be used; the message names the file or the prompt and says why."""


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """A template: messages with placeholders such as `{answer}`."""

    label: str
    """What people call the prompt: the name of its file without ending."""
    messages: tuple[Message, ...]

    def fill(self, **texts: str) -> list[Message]:
        """The messages with these texts, defused, in place of the placeholders of the same names.

        Other text in braces stays as it is.
        """
        whole = "\n".join(m["content"] for m in self.messages)
        tags = set(END_TAG.findall(whole))
        harmless = {name: defuse(text, tags, numbered=False) for name, text in texts.items()}

        # All placeholders are replaced in one pass, so that no text can bring in another placeholder.
        def replacement(placeholder: re.Match[str]) -> str:
            return harmless.get(placeholder[1], placeholder[0])

        return [
            Message(role=m["role"], content=PLACEHOLDER.sub(replacement, m["content"]))
            for m in self.messages
        ]


def parse_prompt(label: str, text: str, needs: Sequence[str]) -> JudgePrompt:
    """A template from plain text, which is one user message, or from ChatML blocks.

    Args:
        label: What to call the prompt.
        text: The template.
        needs: Names of the placeholders that the template must have.

    Raises:
        PromptError: the template lacks a placeholder, or has text outside of its ChatML blocks.
    """
    messages = [Message(role="user", content=text.strip())]
    if "<|im_start|>" in text:
        messages = [
            Message(role=role, content=content.strip()) for role, content in BLOCK.findall(text)
        ]
        if outside := BLOCK.sub("", text).strip():
            message = f"judge prompt {label!r} has text outside of its message blocks: {outside[:60]!r}"
            raise PromptError(message)
    prompt = JudgePrompt(label, tuple(messages))
    require_placeholders(prompt, needs)
    return prompt


def require_placeholders(prompt: JudgePrompt, needs: Sequence[str]) -> None:
    """Raise PromptError if the prompt lacks one of the placeholders."""
    has = {name for m in prompt.messages for name in PLACEHOLDER.findall(m["content"])}
    if missing := [name for name in needs if name not in has]:
        lacks, wants = (", ".join(f"{{{name}}}" for name in names) for names in (missing, needs))
        raise PromptError(f"judge prompt {prompt.label!r} lacks {lacks}; it needs {wants}")


def read_prompt(path: Path, needs: Sequence[str]) -> JudgePrompt:
    """The template in a text file; see `parse_prompt`. Its label is the name of the file.

    Raises:
        PromptError: the file cannot be read, or its text cannot be used.
    """
    return parse_prompt(path.stem, read_text(path), needs)


def read_text(path: Path) -> str:
    """The text of a prompt file.

    Raises:
        PromptError: the file cannot be read as UTF-8.
    """
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"prompt file {str(path)!r} cannot be read: {error}") from error


def name_with_hash(model: str, prompts: Sequence[JudgePrompt], *settings: str | int) -> str:
    """The name of a judge in verdicts, `MODEL:LABEL-HASH`.

    The hash covers the prompts and the settings: with another prompt the same model is another judge.

    Args:
        model: Name of the judge's model.
        prompts: The judge's prompts. The name shows the label of the first prompt.
        settings: Everything else that determines the verdicts.
    """
    determines = json.dumps([[list(p.messages) for p in prompts], *settings], sort_keys=True)
    digest = hashlib.sha256(determines.encode()).hexdigest()
    return f"{model}:{prompts[0].label}-{digest[:8]}"


def first_question(row: Row) -> str:
    """The first turn of a row as one text, which begins with the messages before the turn, if any."""
    if not row.before:
        return row.turns[0]
    before = [f"{m['role']}: {m['content']}" for m in row.before]
    return "\n\n".join([*before, f"user: {row.turns[0]}"])
