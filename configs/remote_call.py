"""What a recipe may add to the calls of an OpenAI-compatible server, and take from them.

Keys and other secrets never stand in a recipe: a header may name environment variables instead.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from configs.base import Many, meant
from configs.shown import shown

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""A reference to an environment variable in the value of a header."""
SECRET_HEADER = re.compile(
    r"authori[sz]ation|(^|[-_])(api-?key|key|token|secret|password|cookie|credentials?)$", re.IGNORECASE
)
"""Names of headers whose values are secret."""
SECRET_FIELD = re.compile(
    r"api_?key|authori[sz]ation|secret|password|(auth|access|bearer)_?token", re.IGNORECASE
)
"""Names of fields whose values are secret."""
SECRET_VALUE = re.compile(
    r"^\W*(bearer|basic)\s+\S|\b(sk|pk|rk|gsk|hf|xai|nvapi|pplx|csk|tgp|fw|r8)[-_]\w{12}|\bAIza\w{20}"
    r"|\beyJ\w{10,}\.",
    re.IGNORECASE,
)
"""What keys of well-known services look like."""
OWN_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that the HTTP client sets."""
OWN_FIELDS: Mapping[str, str] = {
    "messages": "the request gives the messages",
    "model": "use the model's setting `model`",
    "stream": "answers are always streamed; `omit: [stream]` is for servers that do not know it",
    "n": "a call has one answer; a proposer's `samples` asks for several",
    "max_tokens": "use max_tokens in `sampling`",
    "max_completion_tokens": "use max_tokens in `sampling`, and `output_limit`",
    "temperature": "use `sampling`",
    "top_p": "use `sampling`",
    "top_k": "use `sampling`",
    "min_p": "use `sampling`",
    "repetition_penalty": "use `sampling`",
    "stop": "use `sampling`",
    "seed": "use `sampling`",
    "presence_penalty": "use `sampling`",
    "frequency_penalty": "use `sampling`",
    "logprobs": "use top_logprobs in `sampling`",
    "top_logprobs": "use `sampling`",
    "reasoning_effort": "use `sampling`",
    "chat_template_kwargs": "use the model's setting `template`",
}
"""Fields of a request's body that other settings give, and which."""


def _require_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if name.lower() in OWN_HEADERS:
            raise _problem(f"{name!r} is set by the HTTP client; leave it out")
        rest = VARIABLE.sub("", value)
        is_secret = SECRET_HEADER.search(name) is not None and VARIABLE.search(value) is None
        if is_secret or SECRET_VALUE.search(rest):
            raise _secret(name)
        if not is_header_value(rest):
            raise _problem(f"the value of {name!r} has a character that no header may have")
    lower = [name.lower() for name in headers]
    if twice := next((name for name in lower if lower.count(name) > 1), None):
        raise _problem(f"{twice!r} stands there twice")
    return headers


def _require_body(fields: dict[str, Any]) -> dict[str, Any]:
    for name, value in fields.items():
        if name in OWN_FIELDS:
            raise _problem(f"{name!r} cannot stand here: {OWN_FIELDS[name]}")
        try:
            text = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise _problem(f"{name!r} has to be JSON, not {shown(value)}") from None
        if (isinstance(value, str) and SECRET_FIELD.search(name)) or SECRET_VALUE.search(text):
            raise _secret(name)
    return fields


def _require_omitted(names: tuple[str, ...]) -> tuple[str, ...]:
    if "messages" in names:
        raise _problem("'messages' cannot be left out")
    return names


def _problem(text: str) -> PydanticCustomError:
    return PydanticCustomError("remote_call", "{problem}", {"problem": text})


def _secret(name: str) -> PydanticCustomError:
    return _problem(
        f"{name!r} looks like a key, and keys never stand in a recipe: put the key into an environment "
        "variable, and write the variable as ${NAME} into headers, or name it in api_key_env"
    )


def is_header_value(value: str) -> bool:
    """Whether a header of HTTP may have the value: printable characters of Latin-1 (RFC 9110, 5.5)."""
    return all(character == "\t" or "\x20" <= character != "\x7f" for character in value) and all(
        ord(character) < 256 and not 0x80 <= ord(character) < 0xA0 for character in value
    )


HeaderName = Annotated[
    str,
    Field(
        pattern=meant(
            r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$", "the name of a header, such as X-Title, without :"
        )
    ),
]
Headers = Annotated[
    dict[HeaderName, Annotated[str, Field(max_length=4096)]],
    Field(max_length=32),
    AfterValidator(_require_headers),
]
"""Headers by name. `${NAME}` in a value stands for an environment variable."""
ExtraBody = Annotated[dict[str, Any], Field(max_length=64), AfterValidator(_require_body)]
"""Further fields of a request's body."""
FieldName = Annotated[
    str,
    Field(
        pattern=meant(
            r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$",
            "the name of a field of the request's body, such as temperature",
        )
    ),
]
Omitted = Annotated[Many[FieldName], Field(max_length=64), AfterValidator(_require_omitted)]
"""Names of fields that are left out of a request's body."""
