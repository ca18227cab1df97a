"""Keeps texts from being read as control tokens: a proposal must not be able to end its own message.

A chat template joins messages with control tokens such as `<|im_end|>`. An engine reads the whole
prompt as one text, so it would read such a token in a message's text as control too. What is control is
asked of the model's own tokenizer. Exactly that is made harmless, and every other text stays as it is,
byte for byte. For a server whose tokenizer is unknown, the marks of all known families count
(`known_marks.py`).

The first character of each control token in a text is replaced by a similar character. So the text has
as many characters as before, and nothing that is left can join to a control token.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.engine import Message
from actors.text.known_marks import FAMILIES, MISTRAL, MISTRAL_SPECIAL, PATTERNS

SIMILAR = {"<": "‹", "[": "❲", "◁": "◃", ">": "›", "/": "∕"}
"""What replaces the first character of a control token. Unicode's compatibility forms (NFKC), which
some tokenizers apply, do not turn these characters back."""
OTHER = "·"
"""What replaces every other first character."""
SHAPE = re.compile(r"[<\[◁]\S+[>\]▷]")
"""A mark in brackets."""
BARRED = re.compile(r"<[|｜]\S+>|<\S+[|｜]>")
"""A mark that has a bar beside one of its brackets. All control tokens of newer families look so."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tekken.json")
"""The files of a checkpoint's folder that name control tokens."""


class Defuser:
    """Makes control tokens in texts harmless.

    Args:
        marks: the texts of the control tokens.
        patterns: regular expressions for further control tokens, of which there are many alike. Each
            begins with a plain character.
    """

    def __init__(self, marks: Iterable[str], patterns: Iterable[str] = ()) -> None:
        self.marks = frozenset(mark for mark in marks if mark.strip())
        """The texts of the control tokens."""
        self._lengths = sorted({len(mark) for mark in self.marks})
        patterns = list(patterns)
        self._patterns = re.compile("|".join(patterns)) if patterns else None
        firsts = {mark[0] for mark in self.marks} | {p.lstrip("\\")[0] for p in patterns}
        self._firsts = re.compile(f"[{re.escape(''.join(sorted(firsts)))}]" if firsts else r"(?!)")

    def defuse(self, text: str) -> str:
        """The text with every control token made harmless."""
        return self._firsts.sub(self._replacement, text)

    def _replacement(self, first: re.Match[str]) -> str:
        text, at = first.string, first.start()
        is_mark = any(text[at : at + length] in self.marks for length in self._lengths)
        if not is_mark and self._patterns is not None:
            is_mark = self._patterns.match(text, at) is not None
        return SIMILAR.get(first[0], OTHER) if is_mark else first[0]

    def harmless(self, messages: Sequence[Message]) -> list[Message]:
        """The messages with every control token in their texts made harmless."""
        return [Message(role=m["role"], content=self.defuse(m["content"])) for m in messages]


def known() -> Defuser:
    """A Defuser for a model whose tokenizer is not known."""
    return Defuser((mark for marks in FAMILIES.values() for mark in marks), PATTERNS)


def is_control(token: str, template: str) -> bool:
    """Whether a token that the tokenizer keeps whole, but does not call control, is control too.

    Some tokenizers do not call all of their marks control: Command-R's `<|START_OF_TURN_TOKEN|>` in a
    GGUF file, DeepSeek's `<｜User｜>`, Gemma 4's `<|channel>`, Qwen's `<tool_call>`. Other such tokens
    are ordinary text: Gemma's `<table>` and its line breaks. So a token counts if it is a mark in
    brackets, and either has a bar beside a bracket or is written by the chat template.
    """
    if BARRED.fullmatch(token):
        return True
    return bool(SHAPE.fullmatch(token)) and token in template


def written_by(template: str) -> set[str]:
    """The known control tokens that a chat template writes. They count even where the tokenizer has no
    such token, as with Llama 2's `[INST]`: the model reads the text as control."""
    return {mark for marks in FAMILIES.values() for mark in marks if mark in template}


def from_folder(folder: Path) -> tuple[frozenset[str], str]:
    """The control tokens that a checkpoint's folder names, and its chat template ("" without one).

    Files that are missing or broken name none: the engine that loads the folder reports them.
    """
    files = {name: _read_json(folder / name) for name in TOKENIZER_FILES}
    template = _template(folder, files["tokenizer_config.json"])
    tokens = written_by(template)
    if files["tekken.json"]:  # older files of Mistral leave their control tokens out
        tokens |= set(MISTRAL) | {f"<SPECIAL_{n}>" for n in range(MISTRAL_SPECIAL)}
    for content in files.values():
        tokens.update(_named(content))
        tokens.update(t for t, special in _added(content) if special or is_control(t, template))
    return frozenset(tokens), template


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _template(folder: Path, config: Mapping[str, Any]) -> str:
    """The chat template of a folder; several templates are joined."""
    found: list[str] = []
    for path in sorted(folder.glob("*.jinja")):
        found.append(path.read_text("utf-8", errors="replace"))
    for value in (config, _read_json(folder / "chat_template.json")):
        template = value.get("chat_template")
        if isinstance(template, str):
            found.append(template)
        elif isinstance(template, list):
            found += [str(named.get("template", "")) for named in template if isinstance(named, dict)]
    return "\n".join(found)


def _added(content: Mapping[str, Any]) -> Iterable[tuple[str, bool]]:
    """The added tokens of a file, and whether the file calls each of them special."""
    lists = [content.get("added_tokens"), content.get("special_tokens")]  # tokenizer.json, tekken.json
    decoder = content.get("added_tokens_decoder")  # tokenizer_config.json
    lists.append(list(decoder.values()) if isinstance(decoder, dict) else [])
    for tokens in lists:
        for token in tokens if isinstance(tokens, list) else []:
            if isinstance(token, dict):
                text = token.get("content") or token.get("token_str")
                if isinstance(text, str):
                    yield text, bool(token.get("special", token.get("is_control")))


def _named(content: Mapping[str, Any]) -> Iterable[str]:
    """The tokens that a file names by their role, such as `eos_token`."""
    for key, value in content.items():
        if key.endswith("_token") or key in ("additional_special_tokens", "extra_special_tokens"):
            values = value.values() if isinstance(value, dict) and "content" not in value else [value]
            for item in value if isinstance(value, list) else values:
                text = item.get("content") if isinstance(item, dict) else item
                if isinstance(text, str):
                    yield text
