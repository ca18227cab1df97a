"""One layer: its proposers answer side by side, each within the layer's deadlines.

What becomes of a sample, and the cause that `ProposalDropped` names:

| case | what happens | events | cause |
| --- | --- | --- | --- |
| 1 | its call ends with text | `ProposalDone` | |
| 2 | its call fails or is cancelled from outside | `ProposalDropped` | the error's code |
| 3 | its call ends without any visible text | `Spent`, `ProposalDropped` | `empty` |
| 4 | its call ends with reasoning and no answer | `Spent`, `ProposalDropped` | `only_reasoning` |
| 5 | the layer's time is up before its call ends | `ProposalDropped` | `late` |
| 6 | its replica is lost and a retry is possible | `Retried`, then those of another case | |
| 7 | a filter ends its call, or the model refuses | `Spent`, `ProposalDropped` | `content_filter` |
| 8 | case 1, but a later layer misses the quorum | case 1, `ProposalDropped` | `quorum_not_met` |

Where the answer may be there before the layer has ended, `early.py` drops the others (`not_needed`).

A layer's time is up at the first of these moments:

a. the deadline of the answer;
b. `layer_deadline_s` after the start of the layer;
c. `grace_s` after the quorum was met, if the recipe has a grace.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import cast

from actors.engine import Delta, Message, merge
from actors.text.thinking import without_reasoning
from actors.text.visible import is_blank
from configs.errors import (
    ContentFiltered,
    EmptyAnswer,
    EngineUnavailable,
    OnlyReasoning,
    QuorumNotMet,
    RequestError,
)
from configs.schema import Recipe
from serve_app.mixture.context_budget import PromptTask, fit
from serve_app.mixture.events import (
    FILTERED,
    Call,
    Event,
    Missing,
    ProposalDelta,
    ProposalDone,
    ProposalDropped,
    ProposalThinks,
    Retried,
    Spent,
    Trimmed,
)
from serve_app.mixture.first import mean_logprob
from serve_app.mixture.models import Models
from serve_app.mixture.only_reasoning import only_reasoning
from serve_app.mixture.retry import Retries
from serve_app.mixture.samples import Sample
from serve_app.mixture.shown_text import ShownText
from serve_app.safe_traceback import safe_traceback

logger = logging.getLogger(__name__)

Outcome = ProposalDone | Missing
"""What a sample's call ends with."""


@dataclass(frozen=True, slots=True)
class LayerTask:
    """What one layer of an answer is to do."""

    recipe: Recipe
    number: int
    """The layer's number, from 1."""
    samples: Sequence[Sample]
    messages: Sequence[Message]
    references: Sequence[str]
    """Texts of the proposals that the samples may use, in the order in which the prompt has them; empty
    in the first layer."""
    deadline: float
    """When the whole answer has to end, in seconds on the event loop's clock."""
    stream_proposals: bool
    """Whether the layer gives `ProposalThinks` and `ProposalDelta` events. These events cost time."""
    in_pieces: bool
    """Whether a `ProposalDelta` may have the text of about 0.1 s (`actors.engine.PIECE_S`), which costs
    a fraction of an event for each token."""
    seen: Mapping[int, Sequence[str]] = field(default_factory=dict)
    """The references of single samples by their place, where a sample does not read all of them."""
    began: float | None = None
    """When the layer began, on the event loop's clock, if some of its samples were asked before."""


async def propose(task: LayerTask, models: Models) -> AsyncGenerator[Event]:
    """Run a layer and give its events; the file's docstring has the cases.

    The layer's deadlines hold even while nobody reads its events. Closing the generator cancels every
    call in flight, and waits until all calls have ended.
    """
    layer = _Layer(task, models)
    calls: dict[asyncio.Task[Outcome], Sample] = {}
    if asyncio.get_running_loop().time() < task.deadline:
        calls = {asyncio.create_task(layer.call(sample)): sample for sample in task.samples}
    deadlines = asyncio.create_task(layer.enforce_deadlines(calls))
    deadlines.add_done_callback(lambda _: layer.events.put_nowait(None))
    try:
        while (event := await layer.events.get()) is not None:
            yield event
        await deadlines
    finally:
        deadlines.cancel()
        for call in calls:
            if not call.cancelling():  # a second cancellation would break into the engine's closing
                call.cancel()
        await asyncio.wait([deadlines, *calls])


class _Layer:
    """A layer at work. The queue `events` gets each event, and None after the last event."""

    def __init__(self, task: LayerTask, models: Models) -> None:
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._began = asyncio.get_running_loop().time() if task.began is None else task.began
        self._task = task
        self._models = models

    async def enforce_deadlines(self, calls: dict[asyncio.Task[Outcome], Sample]) -> None:
        """Wait for the calls, put how each sample ends into `events`, and cancel the calls that are
        late.

        The numbers and letters are those of the file's docstring.

        Args:
            calls: the samples by their call; empty if the answer's deadline had passed before any call
                could start.
        """
        loop = asyncio.get_running_loop()
        task = self._task
        limits = task.recipe.limits
        limit = min(task.deadline, self._began + limits.layer_deadline_s)  # a, b
        waiting = dict(calls)
        done: list[Sample] = []
        while waiting:
            left_s = limit - loop.time()
            ended, _ = await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if not ended:
                break
            for call in sorted(ended, key=lambda c: waiting[c].place):
                sample = waiting.pop(call)
                outcome = self._outcome(call, sample)
                if isinstance(outcome, ProposalDone):  # 1
                    done.append(sample)
                    self._emit(outcome)
                else:  # 2, 3, 4, 7
                    self._emit(ProposalDropped(sample.place, outcome, self._seconds))
            if len(done) >= limits.quorum and limits.grace_s is not None:
                limit = min(limit, loop.time() + limits.grace_s)  # c
        for call in waiting:
            call.cancel()
        for sample in waiting.values() if calls else task.samples:  # 5
            self._drop(sample, "late", "was not done when the layer's time was up")
        if len(done) < limits.quorum and task.references:  # 8
            detail = (
                f"{len(done)} of {limits.quorum} proposals came, so the last layer's are used again"
            )
            for sample in done:
                self._drop(sample, QuorumNotMet.code, detail)

    def _outcome(self, call: asyncio.Task[Outcome], sample: Sample) -> Outcome:
        if call.cancelled():  # from outside: this layer does not wait for calls that it cancels
            return self._missing(sample, EngineUnavailable.code, "the call was cancelled")
        return call.result()

    async def call(self, sample: Sample) -> Outcome:
        """Ask a model for a sample. An error becomes the sample's outcome and is not raised: even a
        defect of this program costs only a proposal."""
        try:
            return await self._propose(sample)
        except RequestError as error:
            return self._missing(sample, error.code, error.message)
        except Exception as error:
            logger.error("proposer %s: %s", sample.model, safe_traceback(error))
            return self._missing(sample, RequestError.code, type(error).__name__)

    async def _propose(self, sample: Sample) -> Outcome:
        whole, first_s = await self._complete(sample)
        call = Call.from_delta(sample.model, "proposer", whole, sample.sampling.seed)
        text = without_reasoning(whole.text)
        if whole.finish_reason == "content_filter":  # 7
            self._emit(Spent(call))
            return self._missing(sample, ContentFiltered.code, f"the model {FILTERED}")
        if is_blank(text):
            self._emit(Spent(call))
            if not is_blank(whole.text) or whole.reasoning:  # 4
                detail = only_reasoning(whole, sample.sampling)
                return self._missing(sample, OnlyReasoning.code, detail)
            return self._missing(sample, EmptyAnswer.code, "the proposal has no text")  # 3
        number, seconds, sure = self._task.number, self._seconds, mean_logprob(whole.logprobs)
        return ProposalDone(number, sample.place, sample.model, text, seconds, call, first_s, sure)

    @property
    def _seconds(self) -> float:
        """Time since the layer began."""
        return asyncio.get_running_loop().time() - self._began

    async def _complete(self, sample: Sample) -> tuple[Delta, float | None]:
        """The sample's whole answer, and `ProposalDone.first_s`: fits the prompt, then calls the model,
        and retries lost calls."""
        task, models, model = self._task, self._models, sample.model
        retries = Retries(models, model)
        prompt = PromptTask(
            recipe=task.recipe,
            model=model,
            messages=task.messages,
            references=task.seen.get(sample.place, task.references),
            reserve_tokens=sample.sampling.most_tokens,
            template=sample.sampling.template_arguments,
        )

        def on_retry(error: EngineUnavailable) -> None:  # 6
            self._emit(Retried(task.number, model, error.message))

        fitted = await retries.run(lambda: fit(prompt, models), on_retry)
        if fitted.tokens_removed:
            self._emit(Trimmed(task.number, model, fitted.tokens_removed))
        if task.stream_proposals:
            shown = ShownText()
            whole = await retries.run(lambda: self._stream(sample, fitted.messages, shown), on_retry)
            return whole, shown.first_s
        whole = await retries.run(
            lambda: models.complete(model, fitted.messages, sample.sampling), on_retry
        )
        return whole, None

    async def _stream(self, sample: Sample, messages: Sequence[Message], shown: ShownText) -> Delta:
        """One attempt at a sample whose proposal is streamed."""
        written: list[Delta] = []
        shown.begin()
        streamed = not self._task.in_pieces
        stream = self._models.stream(sample.model, messages, sample.sampling, streamed)
        async with aclosing(cast("AsyncGenerator[Delta]", stream)) as deltas:
            async for delta in deltas:
                written.append(delta)
                if shown.first_s is None and (delta.text or delta.reasoning):
                    shown.first_s = self._seconds
                if delta.reasoning and shown.begins_to_think(delta.text):
                    self._emit(ProposalThinks(self._task.number, sample.place, sample.model))
                if more := shown.extend(delta.text):
                    self._emit(ProposalDelta(self._task.number, sample.place, sample.model, more))
        return merge(written or [Delta()])

    def _missing(self, sample: Sample, cause: str, detail: str) -> Missing:
        return Missing(self._task.number, sample.model, cause, detail)

    def _drop(self, sample: Sample, cause: str, detail: str) -> None:
        missing = self._missing(sample, cause, detail)
        self._emit(ProposalDropped(sample.place, missing, self._seconds))

    def _emit(self, event: Event) -> None:
        self.events.put_nowait(event)
