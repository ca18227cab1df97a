"""The body of an error: OpenAI's envelope, which here also names the model at fault."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from cluster.logs.line import current_request
from configs.errors import ContextTooLong, RequestError


class Described(BaseModel):
    """Base of the classes that SlimMoA adds to OpenAI's answers. In the schema, the docstring below a
    field is the field's description."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class ErrorObject(Described):
    """OpenAI's error object, which here also names the model at fault."""

    message: str
    """What went wrong, for people."""
    type: str
    """The kind of error, as OpenAI names it."""
    param: str | None
    """Name of the request's parameter at fault; null if no parameter is."""
    code: str
    """The cause, for programs."""
    model: str | None
    """Name of the model at fault; null if no model is."""
    request_id: str | None = None
    """The ID of the request, as in the header `x-request-id` and in the server's log; left out outside
    of any request."""


class ErrorReply(Described):
    """The body of every answer that is an error, and the last event but one of a stream that fails."""

    error: ErrorObject
    """What went wrong."""


def error_words(error: RequestError) -> str:
    """The message of an error, in words by which clients know an overflow of the context.

    LiteLLM and agents look for OpenAI's older sentence. LangChain looks for the code in the text of the
    error, where OpenAI's Python client puts nothing but the message since version 3, and for OpenAI's
    newer words in an error that ends a stream.
    """
    message = error.message
    if not isinstance(error, ContextTooLong):
        return message
    if "maximum context length is" not in message:  # an engine says it in its own words
        message = f"The conversation is longer than the model's context length: {message}"
    return f"{message.rstrip('.')}. The request exceeds the context window ({error.code})."


def error_body(error: RequestError, request_id: str | None = None) -> dict[str, Any]:
    """An ErrorReply as a dictionary, ready for JSON.

    Args:
        error: the error.
        request_id: the ID of the request; by default that of the request on whose behalf this task
            works.
    """
    envelope = ErrorObject(
        message=error_words(error),
        type=error.kind,
        param=error.param,
        code=error.code,
        model=error.model,
        request_id=request_id or current_request.get(),
    )
    unknown = {"request_id"} if envelope.request_id is None else set()
    return ErrorReply(error=envelope).model_dump(exclude={"error": unknown})
