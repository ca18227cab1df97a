"""While the last layer writes, the aggregator reads the proposals that are there already.

Most of the time to an aggregator's first token is the reading of the proposals. The order of the
references is known from the start (`reference_order.py`). So the aggregator's engine can read the
prompt into its cache up to the first proposal that has not come, while proposals are still written (a
warm-up). Other systems do the same: arXiv 2512.18126 and vllm-omni (pull request 5894). A warm-up
changes no prompt. But the engine computes the prompt in other steps, so the last bits of the results
may differ.

A warm-up never waits, and it makes a call wait for one step of the engine at most. The replica decides
whether it may run (`Replica.warm`). It is no call of the answer: it is not retried, the usage does not
count it, and its failure changes nothing.
"""

import asyncio
import logging
from collections.abc import Sequence
from types import TracebackType

from actors.text.thinking import without_reasoning
from configs.errors import RequestError
from configs.extra_parameters import tools_in_text
from configs.schema import Recipe
from serve_app.mixture.aggregation_task import AggregationTask
from serve_app.mixture.begun_answer import without_begun_answer
from serve_app.mixture.context_budget import PromptTask
from serve_app.mixture.events import (
    Event,
    ProposalDelta,
    ProposalDone,
    ProposalDropped,
    Retried,
    StageStarted,
)
from serve_app.mixture.models import Models, warm
from serve_app.mixture.reference_order import ReferenceOrder

GROWTH_TOKENS = 64
"""How many tokens a proposal has to grow by before its beginning is warmed again."""

CHARACTERS = 3
"""How many characters count as one token here. The number is low, so that a reference that may be cut
is not warmed."""

logger = logging.getLogger(__name__)


class ReadyReferences:
    """Which references the aggregator will read first, as far as they are known. Pure.

    Args:
        order: the order of the references.
        stage: number of the stage that reads them.
        models: the model of each sample of the layer, by place.
        most_characters: length of the longest reference that is certain to stay whole. If all
            references together are too long, the longest are cut (`fit`).
    """

    def __init__(
        self, order: ReferenceOrder, stage: int, models: Sequence[str], most_characters: int
    ) -> None:
        self._order = order
        self._stage = stage
        self._places = order.places(stage)
        self._models = models
        self._most = most_characters
        self._done: dict[int, ProposalDone] = {}
        self._left = set(range(len(models)))
        """The places whose samples have not ended."""
        self._grown: dict[int, list[str]] = {place: [] for place in self._left}
        """The text that has come of each proposal, except of proposals that may begin anew."""
        self._unread = 0
        """How many characters of the next proposal have come since `texts` was last read."""
        self._next = self._find_next()

    def note(self, event: Event) -> bool:
        """Take in an event of the layer, and say whether `texts` may have more now."""
        if isinstance(event, ProposalDelta):
            if (grown := self._grown.get(event.place)) is None:
                return False
            grown.append(event.text)
            if event.place != self._next:
                return False
            self._unread += len(event.text)
            return self._unread >= GROWTH_TOKENS * CHARACTERS
        if isinstance(event, ProposalDone):
            self._done[event.place] = event
        elif isinstance(event, ProposalDropped):
            self._done.pop(event.place, None)
        elif isinstance(event, Retried):  # a proposal of this model begins anew, perhaps differently
            for place, model in enumerate(self._models):
                if model == event.model:
                    self._grown.pop(place, None)
            return False
        else:
            return False
        self._left.discard(event.place)
        self._next = self._find_next()
        self._unread = sum(map(len, self._grown.get(self._next, ())))
        return not self.is_complete

    @property
    def is_complete(self) -> bool:
        """Whether all samples have ended. Then the aggregator itself reads the prompt."""
        return not self._left

    def texts(self) -> list[str]:
        """The first references of the aggregator's prompt, in order. The last reference may be the
        beginning of a proposal that still grows."""
        self._unread = 0
        found: list[str] = []
        for proposal in self._first():
            if len(proposal.text) > self._most:
                return found
            found.append(proposal.text)
        grown = without_reasoning("".join(self._grown.get(self._next, ())))
        if GROWTH_TOKENS * CHARACTERS <= len(grown) <= self._most:
            found.append(grown)
        return found

    def _first(self) -> list[ProposalDone]:
        """The first proposals of the prompt: no other proposal can still come before them."""
        if self._order.by_arrival:
            return self._order.sort(list(self._done.values()), self._stage)
        places = self._places
        until = next((n for n, place in enumerate(places) if place in self._left), len(places))
        return [self._done[place] for place in places[:until] if place in self._done]

    def _find_next(self) -> int:
        """The place of the proposal that stands behind those of `_first`; -1 if it is not known."""
        if self._order.by_arrival:
            return next(iter(self._left)) if len(self._left) == 1 else -1
        return next((place for place in self._places if place in self._left), -1)


class Overlap:
    """Warms the aggregator's prompt while the last layer runs, one warm-up at a time.

    Args:
        ready: the references that are known so far.
        prompt: the aggregator's prompt. Its own references are not used.
        models: the models of the recipe.
        at_start: whether the conversation without references is warmed at once.
    """

    def __init__(
        self, ready: ReadyReferences, prompt: PromptTask, models: Models, *, at_start: bool
    ) -> None:
        self._ready = ready
        self._prompt = prompt
        self._models = models
        self._at_start = at_start
        self._warmed: list[str] | None = None
        """The references that were warmed last."""
        self._task: asyncio.Task[None] | None = None
        self._is_busy = False
        """Whether the aggregator had other work at the last try. Then a proposal that grows is no
        reason to try again: under load, each such try would cost time, and none would help."""
        self._is_off = False

    async def __aenter__(self) -> "Overlap":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the warm-up that runs. What the engine has computed so far stays in its cache."""
        self._is_off = True
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    def note(self, event: Event) -> None:
        """Take in an event of the layer."""
        is_worth_it = self._ready.note(event) or (self._at_start and isinstance(event, StageStarted))
        if is_worth_it and not (self._is_busy and isinstance(event, ProposalDelta)):
            self._look()

    def _look(self) -> None:
        if not self._is_off and (self._task is None or self._task.done()):
            texts = self._ready.texts()
            if self._is_more(texts):
                self._task = asyncio.create_task(self._warm(texts))

    def _is_more(self, texts: list[str]) -> bool:
        if self._ready.is_complete:
            return False
        return texts != self._warmed and (bool(texts) or (self._at_start and self._warmed is None))

    async def _warm(self, texts: list[str]) -> None:
        """Warm these references, and after that the references that have come in the meantime."""
        prompt = self._prompt
        while self._is_more(texts):
            try:
                done = await warm(self._models, prompt.model, prompt.prompt(texts), prompt.template)
            except RequestError as error:  # the aggregator's own call will meet the cause
                logger.debug("warm-up of model %s: %s", prompt.model, error.code)
                self._is_off = True
                return
            except Exception as error:  # an answer must not fail because of a warm-up
                logger.debug("warm-up of model %s: %s", prompt.model, type(error).__name__)
                self._is_off = True
                return
            self._is_busy = done is None
            if done is None:  # the engine has other work; the end of the next proposal tries again
                return
            self._warmed = texts
            texts = self._ready.texts()


class NoOverlap(Overlap):
    """Warms nothing."""

    def __init__(self) -> None:
        self._task = None

    def note(self, event: Event) -> None:
        """Do nothing."""


def why_no_overlap(recipe: Recipe, *, repeatable: bool) -> str | None:
    """Why answers of a recipe are made without overlap; None if they may be made with it.

    Args:
        recipe: the recipe.
        repeatable: whether the request has a seed, so that the same request gives the same text again.
    """
    aggregator = recipe.aggregator
    if aggregator.overlap == "off":
        return "the recipe says so"
    if recipe.settings(aggregator.model).engine == "openai_http":
        return "another server is paid by the token, and keeps its cache as it likes"
    if aggregator.method != "merge":
        return "the aggregator does not read the proposals in this order"
    if aggregator.overlap == "on":
        return None
    if recipe.exit is not None:
        return "the answer may be there before the aggregator is asked"
    if repeatable:
        return "the same seed has to give the same text again"
    return None


def overlap(
    task: AggregationTask, order: ReferenceOrder, layer_models: Sequence[str], models: Models
) -> Overlap:
    """The overlap of the last layer with the aggregator's prefill.

    Args:
        task: the last stage; its references are not known yet.
        order: the order in which the aggregator will read the proposals of the layer.
        layer_models: the model of each sample of the layer, by place.
        models: the models of the recipe.
    """
    recipe, sampling = task.recipe, task.sampling
    if why_no_overlap(recipe, repeatable=sampling.seed is not None) is not None:
        return NoOverlap()
    aggregator = recipe.aggregator.model
    tools = tools_in_text(sampling.extra, recipe.settings(aggregator).engine)
    prompt = PromptTask(
        recipe=recipe,
        model=aggregator,
        messages=without_begun_answer(task.in_calls if tools and task.in_calls else task.messages),
        references=(),
        reserve_tokens=sampling.most_tokens,
        template=sampling.template_arguments,
        tools=tools,
    )
    ready = ReadyReferences(
        order, recipe.stages, layer_models, _most_characters(prompt, len(layer_models))
    )
    proposes = any(recipe.host(model) == recipe.host(aggregator) for model in layer_models)
    at_start = recipe.references.style == "tail" and not proposes
    return Overlap(ready, prompt, models, at_start=at_start)


def _most_characters(prompt: PromptTask, count: int) -> int:
    """About how many characters each of `count` references may have so that none is cut."""
    frame = prompt.prompt([""] * count)
    taken = sum(len(message["content"]) for message in frame) // CHARACTERS
    return max(0, prompt.room - taken) // count * CHARACTERS
