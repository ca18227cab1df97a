"""The body of an error: OpenAI's envelope, which here also names the model at fault."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from configs.errors import RequestError


class Described(BaseModel):
    """Base of all models of answers: the docstring below a field is its description in the schema."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class ErrorObject(Described):
    """OpenAI's error object, which here also names the model at fault."""

    message: str
    """What went wrong, for people."""
    type: str
    """OpenAI's class of errors."""
    param: str | None
    """The request's parameter at fault, if one is."""
    code: str
    """The cause, for programs."""
    model: str | None
    """The model at fault, if one is."""


class ErrorReply(Described):
    """The body of every answer that is an error, and the last event but one of a stream that fails."""

    error: ErrorObject
    """What went wrong."""


def error_body(error: RequestError) -> dict[str, Any]:
    """An ErrorReply as a dictionary, ready for JSON."""
    envelope = ErrorObject(
        message=error.message, type=error.kind, param=error.param, code=error.code, model=error.model
    )
    return ErrorReply(error=envelope).model_dump()
