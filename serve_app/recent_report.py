"""What `/v1/state` says of the last answers and refusals, and of the last minute."""

from pydantic import Field

from serve_app.error_schema import Described


class RecentAnswer(Described):
    """An answer that has ended."""

    at: float
    """When it ended: seconds since 1970."""
    request_id: str
    """The ID of the request."""
    key: str
    """Name of its key."""
    model: str
    """The name that was asked for."""
    outcome: str
    """`ok`, `degraded`, `failed`, or `left` if the client left."""
    seconds: float
    """Time from its admission to its end."""
    tokens_in: int
    """Tokens that all its calls read."""
    tokens_out: int
    """Tokens that all its calls wrote."""
    missing: list[str]
    """The models that are missing in it, each with its cause."""
    by: str | None
    """The model that wrote it; null if it failed, or is a proposal that the client gave."""
    code: str | None
    """The code of the error with which it failed; null if it did not."""


class RecentRefusal(Described):
    """A request that was refused."""

    at: float
    """When: seconds since 1970."""
    request_id: str
    """The ID of the request."""
    key: str | None
    """Name of its key; null if it had no valid one."""
    path: str
    """Its path, shortened."""
    status: int
    """The HTTP status of the refusal."""
    code: str
    """The code of the error."""
    why: str | None
    """The message of the refusal, if it quotes nobody."""


class ModelRates(Described):
    """The calls of one model in the last minute."""

    calls: int = 0
    """Calls that ended with an answer."""
    tokens_out: int = 0
    """Tokens that they wrote."""
    dropped: dict[str, int] = Field(default_factory=dict)
    """How many times the model was missing in an answer, by cause: `late`, `empty`, or the code of an
    error."""
    failing: int = 0
    """Failures in a row of the model, its engine or its server, until now (`FAILURES`)."""
    last_cause: str | None = None
    """The cause of the last time when the model was missing, whenever that was."""
    last_why: str | None = None
    """Why, in a sentence; null if the sentence would quote another server."""
    last_missing_at: float | None = None
    """When that was: seconds since 1970."""


class Rates(Described):
    """What has happened in the last minute."""

    window_s: float
    """The seconds that were counted: 60, or fewer just after the start."""
    answers: int
    """Complete answers, degraded ones included."""
    degraded: int
    """Those of them that were degraded."""
    failed: int
    """Answers that ended with an error after models had begun to work."""
    left: int
    """Answers whose clients left before the end."""
    tokens_in: int
    """Tokens that calls of models read; each call counts when it ends."""
    tokens_out: int
    """Tokens that calls of models wrote."""
    refused: dict[str, int]
    """Refused requests, by the code of the error."""
    models: dict[str, ModelRates]
    """By the name of the model."""
