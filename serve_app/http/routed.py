"""That one model answers a request in place of the mixture, and why."""

from dataclasses import dataclass

from configs.routes import HelperTask


@dataclass(frozen=True, slots=True)
class Routed:
    """A request to the mixture that one of its models answers."""

    task: HelperTask | None
    """The task of a client; None for a prompt that the recipe names itself."""
    model: str
    """Name of the model that answers."""
    why: str
    """What the request was recognised by, in words."""
