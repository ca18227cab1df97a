"""The settings of routes: which requests one model answers in place of the mixture."""

from typing import Annotated, Literal

from pydantic import Field

from configs.base import Many, Name, Strict

HelperTask = Literal[
    "title",
    "tags",
    "follow_ups",
    "search_queries",
    "autocomplete",
    "emoji",
    "image_prompt",
    "language",
    "translation",
    "summary",
    "prompt",
]
"""A short task that a chat client gives to a model by itself, beside the questions of its user: a title
or tags for a chat, questions that the user may ask next, queries for a search, the rest of a text that
is being typed, an emoji or an emotion for a message, a prompt for an image, the language of a text, a
translation, a short summary, a better version of a prompt."""

Beginning = Annotated[str, Field(min_length=16, max_length=500)]


class Route(Strict):
    """Requests to the mixture that one model answers in its place."""

    model: Name
    """Name of a model of this recipe. The mixture's own name leaves these requests with the mixture."""
    tasks: Many[HelperTask] | None = None
    """Which tasks of chat clients the model answers. By default all, or none where `begins` is
    given."""
    begins: Many[Beginning] = ()
    """How prompts of your own begin that the model answers. A request counts if its system message, or
    its first message of the user, begins so. Blanks and line breaks do not matter."""

    def takes(self, task: HelperTask) -> bool:
        """Whether the route is for a task."""
        return task in self.tasks if self.tasks is not None else not self.begins
