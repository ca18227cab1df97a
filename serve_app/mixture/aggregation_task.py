"""What the last stage of an answer is told to do."""

from collections.abc import Sequence
from dataclasses import dataclass

from actors.engine import Message
from configs.schema import Recipe, Sampling
from serve_app.mixture.events import ProposalDone, Role


@dataclass(frozen=True, slots=True)
class AggregationTask:
    """What the last stage of an answer is to do."""

    recipe: Recipe
    role: Role
    messages: Sequence[Message]
    models: Sequence[str]
    """Names of the models that may write the answer, in the order in which they are tried."""
    references: Sequence[str]
    """Texts of the proposals that the models read, in the order in which the prompt has them."""
    best: ProposalDone | None
    """The proposal that is the answer if no model answers."""
    sampling: Sampling
    deadline: float
    """When the answer has to end, in seconds on the event loop's clock."""
    first_token_timeout_s: float | None
    """Seconds that each model has for its first token, over all of its attempts; None for no such
    limit."""
    streamed: bool
    """Whether the client reads the answer as it grows. If not, the answer comes in one delta."""
    note: str = ""
    """What the prompt says behind the references; empty for nothing."""
    why: str = ""
    """Why the references are merged; empty if the recipe knows no other way."""
    in_calls: Sequence[Message] = ()
    """The conversation for models that call tools in their text: earlier calls and results have the
    form in which such a model writes and expects them. Empty if the request has no tools."""
