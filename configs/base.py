"""The base class of all settings, and the types that many settings share."""

import json
import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from configs.shown import shown

NO_KEYS = (
    "API keys never stand in a recipe: put the key into an environment variable and name that "
    "variable in api_key_env"
)
"""What is said of a key that stands in a recipe."""
MEANINGS: dict[str, str] = {}
"""What each pattern of a setting allows, in words for people, by the pattern."""


def meant(pattern: str, meaning: str) -> str:
    """The pattern of a setting, with what it allows in words: messages show the words alone."""
    MEANINGS[pattern] = meaning
    return pattern


def require_below(path: str) -> str:
    """Refuse a path that could lead out of an archive or a repository."""
    steps = path.replace("\\", "/").split("/")
    if any(step in ("", ".", "..") for step in steps) or not path.isprintable():
        message = "this has to be a relative path of plain names, without '.' and '..'"
        raise PydanticCustomError("outside", message)
    return path


RESERVED_ARGUMENTS = frozenset(
    {
        "add_generation_prompt",
        "bos_token",
        "chat_template",
        "continue_final_message",
        "conversation",
        "documents",
        "eos_token",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)
"""Arguments of chat templates, and of the functions that render them, that the engines set."""
ARGUMENT_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"
"""The names that arguments of a chat template may have."""
MOST_ARGUMENTS = 32
"""Most arguments that a chat template is given."""


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def template_problem(arguments: dict[str, Any]) -> str | None:
    """What is wrong with the arguments of a chat template; None if nothing is."""
    if len(arguments) > MOST_ARGUMENTS:
        return f"{len(arguments)} arguments; a chat template takes {MOST_ARGUMENTS} at most"
    for name, value in arguments.items():
        if not re.fullmatch(ARGUMENT_NAME, name):
            return f"{name!r:.80} is no name of an argument: letters, digits and _ are allowed"
        if name in RESERVED_ARGUMENTS:
            return f"{name!r} is set by the engine; leave it out"
        if not _is_json(value):
            return f"{name!r} is no text, number, true, false, list or mapping: {shown(value)}"
        if name in ("enable_thinking", "thinking") and not isinstance(value, bool):
            return f"{name!r} has to be true or false, not {shown(value)}"
    return None


def _require_template(arguments: dict[str, Any]) -> dict[str, Any]:
    if (problem := template_problem(arguments)) is not None:
        raise PydanticCustomError("template", "{problem}", {"problem": problem})
    return arguments


ArgumentName = Annotated[
    str,
    Field(pattern=meant(ARGUMENT_NAME, "at most 64 letters, digits and _, and no digit at the start")),
]
TemplateArguments = Annotated[
    dict[ArgumentName, str | bool | int | float | list[Any] | dict[str, Any]],
    AfterValidator(_require_template),
]
"""Arguments of a chat template by name, such as `enable_thinking: false`."""
Name = Annotated[
    str,
    Field(
        pattern=meant(
            r"^[A-Za-z0-9][A-Za-z0-9._-]*([/:][A-Za-z0-9_][A-Za-z0-9._-]*)*$",
            "letters, digits, '.', '_' and '-', with a letter or a digit at the start; / and : may "
            "join parts (Qwen/Qwen3-8B, llama3:8b)",
        ),
        max_length=128,
    ),
]
"""A name of a model or a mixture. It may be in URLs; names of actors and files have another form of it
(`serve_app/deployment_names.py`)."""
Sha256 = Annotated[
    str,
    Field(pattern=meant(r"^[0-9a-f]{64}$", "64 digits from 0-9 and a-f, as `sha256sum FILE` prints")),
]
"""A SHA-256 in lower-case hexadecimal digits."""
Seconds = Annotated[float, Field(gt=0, le=86_400)]
"""A time above 0 s and of at most a day."""
PathBelow = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(require_below)]
"""A relative path inside an archive or a repository. The path cannot lead out of it."""
REASONING_FORMATS = (
    "think",
    "thinking",
    "thought",
    "seed",
    "minimax_m3",
    "kimi_vl",
    "mistral",
    "cohere",
    "apertus",
    "gemma4",
    "harmony",
    "solar",
    "granite",
    "apriel",
)
"""Families of models by how they mark their reasoning. `actors/text/thinking.py` has the marks."""
T = TypeVar("T")
Many = Annotated[tuple[T, ...], Field(strict=False)]
"""A tuple, which YAML and JSON write as a list."""


class Strict(BaseModel):
    """Base of every group of settings: refuses unknown keys, wrong types, changes, NaN and infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
