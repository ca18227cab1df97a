"""Which model answers a request to the mixture: the mixture, or one of its models in its place.

A request stays with the mixture in these cases:

1. It says so (`moa.routes: false`), it asks for the mixture's events or for log-probabilities, or it
   has proposals or tools: it knows what it asks, or it is an agent's.
2. It is no known task of a client (`helper_prompts.py`), and no prompt that the recipe names.
3. The recipe has no route for it.
4. The model of the route could not hold the answer that the request asks for.
"""

from collections.abc import Sequence

from actors.engine import Message
from configs.routes import HelperTask, Route
from configs.schema import Recipe
from serve_app.http.helper_prompts import (
    BEGINNING_CHARACTERS,
    MOST_EXAMPLES,
    OPEN_WEBUI,
    OPEN_WEBUI_BEGINS,
    OPEN_WEBUI_ENDS,
    OPEN_WEBUI_HISTORY,
    OPEN_WEBUI_KEY,
    OPEN_WEBUI_KEYS,
    OPEN_WEBUI_NAMES,
    PROMPTS,
    Place,
)
from serve_app.http.parameters import TOOL_LISTS
from serve_app.http.request import ChatRequest
from serve_app.http.routed import Routed

BEGINS = "the prompt begins as the recipe says"


class Router:
    """Decides who answers.

    Args:
        recipe: has the routes.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        default = (Route(model=recipe.aggregator.model),)
        self._routes = default if recipe.routes is None else recipe.routes
        self._own = [(_plain(text), route) for route in self._routes for text in route.begins]

    def route(self, request: ChatRequest) -> Routed | None:
        """Who answers the request in place of the mixture; None if nobody does."""
        if request.model != self._recipe.name or not self._routes or _stays(request):  # 1
            return None
        messages = request.conversation()
        found = self._own_prompt(messages) or self._task(messages, request.metadata_task)
        if found is None or found.model == self._recipe.name:  # 2, 3
            return None
        limit = request.max_completion_tokens or request.max_tokens or 0
        return found if limit < self._recipe.settings(found.model).context_tokens else None  # 4

    def fallbacks(self, model: str) -> tuple[str, ...]:
        """The models that take over, in this order, where the model of a route fails."""
        return tuple(name for name in self._recipe.aggregators if name != model)

    def _own_prompt(self, messages: Sequence[Message]) -> Routed | None:
        """The route of a prompt that the recipe names."""
        if not self._own:
            return None
        system, user = (_first(messages, role) for role in ("system", "user"))
        for begins, route in self._own:
            if system.startswith(begins) or user.startswith(begins):
                return Routed(None, route.model, BEGINS)
        return None

    def _task(self, messages: Sequence[Message], named: str | None) -> Routed | None:
        """The route of a client's task."""
        name = (named or "").rpartition(".")[2].lower()
        if name in OPEN_WEBUI_NAMES:
            task, why = OPEN_WEBUI_NAMES[name], "metadata.task says so"
        elif (known := recognised(messages)) is not None:
            client, task = known
            why = f"the prompt is one of {client}"
        else:
            return None
        models = [route.model for route in self._routes if route.takes(task)]
        return Routed(task, models[0], why) if models else None


def _stays(request: ChatRequest) -> bool:
    asked = request.moa
    has_tools = request.tool_use is not None or any(name in TOOL_LISTS for name in request.ignored)
    knows = asked.events or asked.fuse is not None or bool(request.logprobs)
    return not asked.routes or knows or has_tools


def recognised(messages: Sequence[Message]) -> tuple[str, HelperTask] | None:
    """The client whose prompt this is, and its task; None if it is no known prompt."""
    if messages[-1]["role"] == "assistant":  # an answer that is to be continued
        return None
    beginnings: dict[Place, str] = {"last": _plain(messages[-1]["content"])}
    answers = sum(message["role"] == "assistant" for message in messages)
    questions = [message["content"] for message in messages if message["role"] == "user"]
    if messages[0]["role"] == "system" and answers <= MOST_EXAMPLES:
        system: Place = "examples" if answers else "system"
        beginnings[system] = beginnings["examples"] = _plain(messages[0]["content"])
    if len(questions) == 1 and not answers:
        beginnings["alone"] = _plain(questions[0])
        if (task := _open_webui_task(questions[0], beginnings["alone"])) is not None:
            return OPEN_WEBUI, task
    for prompt in PROMPTS:
        beginning = beginnings.get(prompt.place, "")
        if beginning.startswith(prompt.begins) and prompt.pattern.match(beginning):
            return prompt.client, prompt.task
    return None


def _open_webui_task(question: str, beginning: str) -> HelperTask | None:
    """The task of a prompt in the form of Open WebUI's; None if it has another form."""
    if not (beginning.startswith(OPEN_WEBUI_BEGINS) and question.rstrip().endswith(OPEN_WEBUI_ENDS)):
        return None
    asked = OPEN_WEBUI_KEY.search(question.partition(OPEN_WEBUI_HISTORY)[0])
    return OPEN_WEBUI_KEYS[asked[1]] if asked else None


def _first(messages: Sequence[Message], role: str) -> str:
    """The beginning of the first message of a role; empty if there is none."""
    return next((_plain(message["content"]) for message in messages if message["role"] == role), "")


def _plain(text: str) -> str:
    """The beginning of a text in lower case, with single spaces between words."""
    return " ".join(text[: 2 * BEGINNING_CHARACTERS].lower().split())[:BEGINNING_CHARACTERS]
