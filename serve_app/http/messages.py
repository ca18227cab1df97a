"""The messages of a request, as clients of many servers send them, and what becomes of their fields.

A history has fields that other servers wrote into their answers, or that other servers read. As with
the parameters of a request, each is treated in one of these ways:

1. What says something to a model is read: text in parts, and calls of tools with their results.
   `conversation.py` makes the messages that models read from these fields.
2. HARMLESS_FIELDS fields change no answer here, and are accepted.
3. UNREADABLE fields and parts would change the answer, because they hold what models here cannot read.
   They are refused by name, unless they are empty.
4. All other fields are accepted too, and the answer names them in `moa.ignored`: no list of the fields
   that servers write into their answers is complete.
"""

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from actors.text.tool_prompt import call_text
from configs.errors import BadRequest

HARMLESS_FIELDS = frozenset(
    {
        "annotations",
        "cache_control",
        "citations",
        "created",
        "created_at",
        "finish_reason",
        "id",
        "index",
        "logprobs",
        "metadata",
        "model",
        "parsed",
        "partial",
        "phase",
        "prefix",
        "provider_specific_fields",
        "reasoning",
        "reasoning_content",
        "reasoning_details",
        "redacted_thinking",
        "signature",
        "status",
        "stop_reason",
        "thinking",
        "thinking_blocks",
        "timestamp",
        "token_ids",
        "type",
        "usage",
        "weight",
    }
)
"""Fields of messages and parts that change nothing here: marks for caches, what a server said of an
earlier answer, and reasoning under the names that servers give it. `prefix` and `partial` ask for what
happens anyway: the last message of an assistant is continued."""
UNREADABLE = frozenset(
    {
        "audio",
        "audio_url",
        "file",
        "files",
        "image",
        "image_url",
        "images",
        "input_audio",
        "video",
        "video_url",
        "videos",
    }
)
"""Fields of messages and parts that hold what models here cannot read."""
READ_TYPES = ("text", "input_text", "output_text", "refusal")
"""Types of parts that are read: those of OpenAI's two APIs."""
THOUGHT_TYPES = ("thinking", "redacted_thinking", "reasoning", "reasoning_text", "summary_text")
"""Types of parts that hold reasoning of earlier answers."""
MOST_NAMED = 20
"""Most fields of messages that an answer names."""
LONGEST_NAME = 60
"""Most characters of a field that an answer names."""


class _Lenient(BaseModel):
    """Base of what clients send back. The fields that are read are strict. All other fields are kept,
    so that `others` can name them."""

    model_config = ConfigDict(extra="allow", strict=True, use_attribute_docstrings=True)

    @property
    def others(self) -> dict[str, Any]:
        """The fields that this class does not read and that are not harmless."""
        given = self.model_extra or {}
        return {name: value for name, value in given.items() if name not in HARMLESS_FIELDS}


class TextPart(_Lenient):
    """Part of a message's content. A plain text counts as a part too, and a part without a type that
    has a text is of the type `text`."""

    type: str = Field(json_schema_extra={"enum": [*READ_TYPES, *THOUGHT_TYPES]})
    """`text`, `input_text`, `output_text` or `refusal`, because models here read text only. Reasoning
    of earlier answers (`thinking`, `redacted_thinking`, `reasoning`, `reasoning_text`, `summary_text`)
    is accepted, and the server does not show it to the models."""
    text: str | None = None
    """The text; for a `refusal` it stands in a field of that name."""
    refusal: str | None = None
    """The text of a `refusal`."""

    @model_validator(mode="before")
    @classmethod
    def _typed(cls, part: Any) -> Any:
        if isinstance(part, str):
            return {"type": "text", "text": part}
        if isinstance(part, dict) and "type" not in part and "text" in part:
            return {"type": "text", **part}
        return part

    @field_validator("type")
    @classmethod
    def _is_known(cls, kind: str) -> str:
        if kind not in READ_TYPES + THOUGHT_TYPES:
            allowed = ", ".join(READ_TYPES)
            raise PydanticCustomError(
                "unreadable",
                "models here read text, in parts of the types {allowed}",
                {"allowed": allowed},
            )
        return kind

    def read(self, where: str) -> str:
        """The text that the models read.

        Raises:
            BadRequest: the part has no text.
        """
        if self.type not in READ_TYPES:
            return ""
        name = "refusal" if self.type == "refusal" else "text"
        text: str | None = getattr(self, name)
        if text is None:
            raise BadRequest(f"{where}.{name}: Field required", param=f"{where}.{name}")
        return text


class ToolFunction(_Lenient):
    """Which tool a call is for."""

    name: str
    """Name of the tool."""
    arguments: str | dict[str, Any] | None = None
    """The arguments, as a rule as JSON in a text."""
    input: str | None = None
    """The argument of a custom tool."""

    def read(self, *, in_calls: bool = False) -> str:
        """The call as text.

        Args:
            in_calls: whether the text is for a model that calls tools in its text. If so, the call has
                the form in which such a model writes it. Otherwise it is in prose.
        """
        given = self.arguments if self.arguments is not None else self.input
        if isinstance(given, dict):
            given = json.dumps(given, ensure_ascii=False)
        if in_calls:
            return call_text(self.name, given or "{}")
        return f"I call the tool {self.name} with: {given or '{}'}"


class ToolCall(_Lenient):
    """A call of a tool in an earlier answer."""

    id: str | None = None
    """The id by which the result of the call names the call."""
    function: ToolFunction | None = None
    """The tool that is called."""
    custom: ToolFunction | None = None
    """The custom tool that is called."""


class ChatMessage(_Lenient):
    """One message of a conversation. Fields that are not listed here are accepted."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    """Who speaks. `developer` is read as `system`. `tool`, and its older name `function`, give the
    result of a call, which the models read as a user's message."""
    content: str | list[TextPart] | None = None
    """The text. Several parts are joined without a separator. Messages of the assistant and of tools
    may have none."""
    name: str | None = None
    """A name for the speaker, which is not shown to the models; with `function`, the name of the
    tool."""
    refusal: str | None = None
    """The text of an earlier answer that was a refusal."""
    tool_calls: list[ToolCall] | None = None
    """The tools that the assistant called. The models read the calls as text behind the content."""
    function_call: ToolFunction | None = None
    """The older form of `tool_calls`."""
    tool_call_id: str | None = None
    """The call whose result a message of a tool is."""

    def calls(self, where: str) -> list[tuple[str | None, ToolFunction]]:
        """The calls of tools, each with its id.

        Raises:
            BadRequest: a call does not name its tool.
        """
        if self.role != "assistant":
            return []
        calls: list[tuple[str | None, ToolFunction]] = []
        for n, call in enumerate(self.tool_calls or ()):
            function = call.function or call.custom
            if function is None:
                param = f"{where}.tool_calls.{n}.function"
                raise BadRequest(f"{param}: Field required", param=param)
            calls.append((call.id, function))
        return [*calls, (None, self.function_call)] if self.function_call is not None else calls

    def text(self, where: str) -> str:
        """The content in one piece.

        Raises:
            BadRequest: the message needs a content and has none, or a part has no text.
        """
        if self.content is None and self.role not in ("assistant", "tool", "function"):
            raise BadRequest(f"{where}.content: Field required", param=f"{where}.content")
        content = self.content or ""
        if not isinstance(content, str):
            parts = enumerate(content)
            content = "".join([part.read(f"{where}.content.{n}") for n, part in parts])
        return content or self.refusal or ""


def ignored_fields(messages: Sequence[ChatMessage]) -> list[str]:
    """The fields of case 4, as `messages.NAME` and `messages.content.NAME`, without repetition.

    Raises:
        BadRequest: case 3.
    """
    found: set[str] = set()
    for n, message in enumerate(messages):
        found |= _ignored(message.others, f"messages.{n}", "messages")
        if message.role != "assistant" and (message.tool_calls or message.function_call):
            found.add("messages.tool_calls")
        for k, part in enumerate(message.content if isinstance(message.content, list) else ()):
            found |= _ignored(part.others, f"messages.{n}.content.{k}", "messages.content")
    return sorted(found)[:MOST_NAMED]


def _ignored(fields: dict[str, Any], where: str, prefix: str) -> set[str]:
    found = set()
    for name, value in fields.items():
        if not value:  # [], {}, "", 0 and false say nothing
            continue
        if name in UNREADABLE:
            param = f"{where}.{name}"
            raise BadRequest(f"{param} cannot be read: models here read text only", param=param)
        found.add(f"{prefix}.{name[:LONGEST_NAME]}")
    return found
