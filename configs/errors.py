"""Two trees of errors: those of requests, and those of people at a terminal.

`RequestError` is the base of whatever can go wrong with a request to the API:

    RequestError            base; never raised itself
    ├── BadRequest          400  the request cannot be served as it is
    │   ├── ContextTooLong  400  the conversation does not fit a model's context
    │   ├── ContentFiltered 400  a filter of a model's server refused the conversation
    │   ├── TemplateRefused 400  a model's chat template does not take the conversation
    │   ├── SlowBody        408  headers or body did not come in time
    │   └── TooLarge        413  the body is over the limit
    ├── Unauthorized        401  the request has no valid API key
    ├── Forbidden           403  without keys only this machine may ask
    ├── UnknownModel        404  the model is not served here
    ├── Overloaded          429  a model's queues are full; try again later
    │   └── OverAllowance   429  the key has used up what it is allowed
    ├── EngineError         502  a model failed
    │   └── EmptyAnswer     502  a model wrote no text
    │       └── OnlyReasoning 502  a model thought and did not answer
    ├── EngineUnavailable   503  a model's replica cannot be reached
    │   ├── NoReplica         503  none of the model's replicas runs
    │   └── ServerUnreachable 503  the server that a model runs on does not answer
    ├── ShuttingDown        503  this server is about to stop
    ├── QuorumNotMet        503  too few proposals; the message names each cause
    ├── DeadlineExceeded    504  no answer in time
    └── WeightsError        500  weights cannot be found, fetched or verified; at start, not by requests

Each class of this tree can be made from its message alone and carries all else as attributes. So an
error arrives as its own class in another process: over a connection to a replica
(`actors/calls/wire_errors.py`), and over Ray.

`UserError` is the base of errors that a person at a terminal can mend: a recipe with mistakes, a run
folder that is in use, models that do not fit. A command prints the error's message and ends with exit
code 1. Each part of the project defines its own subclass beside the code that raises it.
"""

from typing import ClassVar


class RequestError(Exception):
    """Base of the errors of requests to the API.

    Args:
        message: for people; it names what is wrong, and the way out where there is one.
        model: name of the model at fault, if there is one.
        param: name of the request's parameter at fault, if there is one.
    """

    status: ClassVar[int] = 500
    """HTTP status of the response."""
    kind: ClassVar[str] = "server_error"
    """`type` of the error in OpenAI's error object."""
    code: ClassVar[str] = "internal_error"
    """`code` of the error in OpenAI's error object."""

    def __init__(self, message: str, *, model: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.model = model
        self.param = param

    @property
    def message(self) -> str:
        """The text for people. `str(error)` also has a traceback once the error has crossed Ray."""
        return str(self.args[0])


class UserError(Exception):
    """Something that the person at the terminal can mend; the message says what and how.

    Commands print the message without a traceback and exit with code 1 (`cli/console.py`).
    """


class BadRequest(RequestError):
    """The request cannot be served as it is; the message names the field, value and what is allowed."""

    status = 400
    kind = "invalid_request_error"
    code = "invalid_request"


class ContextTooLong(BadRequest):
    """The conversation does not fit a model's context; the message says by how much."""

    code = "context_length_exceeded"


class ContentFiltered(BadRequest):
    """A filter of a model's server refused the conversation or the answer, or the model did."""

    code = "content_filter"


class TemplateRefused(BadRequest):
    """A model's chat template does not take the conversation, in any form that is known here. The
    message has the template's own words."""

    code = "template_refused"


class TooLarge(BadRequest):
    """The request body is over the limit."""

    status = 413
    code = "request_too_large"


class SlowBody(BadRequest):
    """The headers or the body of the request did not come in time."""

    status = 408
    code = "request_timeout"


class Unauthorized(RequestError):
    """The request has no API key, several, or one that is not valid. The message never quotes a key."""

    status = 401
    kind = "invalid_request_error"
    code = "invalid_api_key"


class Forbidden(RequestError):
    """There are no API keys, so only this machine may ask, and the request came from elsewhere."""

    status = 403
    kind = "invalid_request_error"
    code = "permission_denied"


class UnknownModel(RequestError):
    """The request names a model that is not served here."""

    status = 404
    kind = "invalid_request_error"
    code = "model_not_found"


class Overloaded(RequestError):
    """A model's queue is full."""

    status = 429
    kind = "rate_limit_error"
    code = "overloaded"


class OverAllowance(Overloaded):
    """A key has reached a limit, or its fair share of a model.

    Args:
        retry_after_s: seconds after which the same request may be admitted.
    """

    code = "rate_limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float = 1.0,
        model: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message, model=model, param=param)
        self.retry_after_s = retry_after_s


class EngineError(RequestError):
    """A model's engine failed on this call."""

    status = 502
    code = "engine_error"


class EmptyAnswer(EngineError):
    """A model ended its answer without any text."""

    code = "empty"


class OnlyReasoning(EmptyAnswer):
    """A model ended after its reasoning, without an answer; the message says what helps."""

    code = "only_reasoning"


class EngineUnavailable(RequestError):
    """A model's engine or its replica is dead, starting, or out of reach, and takes no calls."""

    status = 503
    code = "engine_unavailable"


class NoReplica(EngineUnavailable):
    """No replica of the model runs, so a retry could only wait until one starts."""

    code = "no_replica"


class ServerUnreachable(EngineUnavailable):
    """The server of a remote model does not answer, after all retries that the recipe allows."""

    code = "server_unreachable"


class ShuttingDown(RequestError):
    """This server is about to stop: it takes no new request, or it ended an answer early."""

    status = 503
    code = "shutting_down"


class QuorumNotMet(RequestError):
    """A layer has too few proposals; the message names the cause of each missing proposal."""

    status = 503
    code = "quorum_not_met"


class DeadlineExceeded(RequestError):
    """The answer was not complete within the recipe's deadline."""

    status = 504
    kind = "timeout_error"
    code = "deadline_exceeded"


class WeightsError(RequestError):
    """A model's weights cannot be found, fetched or verified; the message names every attempt."""

    code = "weights_unavailable"
