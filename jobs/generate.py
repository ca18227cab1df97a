"""Answers the rows of a set: many rows at once, and each answer is stored as soon as it is complete.

The order of the engine calls is left to the turns of the models in their slots. Because all rows wait
at once, a run with M models in one slot takes about M swaps. Nothing here knows Ray.
"""

import hashlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Container, Iterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from math import inf

from actors.engine import Message
from actors.text.thinking import without_reasoning
from configs.errors import ContextTooLong, RequestError, UserError
from jobs.answer_events import AnswerEvents, FaultyAnswer
from jobs.records import Answer, Failure, Row
from jobs.store import Store
from jobs.stored_calls import StoredCalls, StoredModels
from jobs.variants import Variant, at_temperature, sampling_alone
from jobs.worker_pool import work_on_all
from serve_app.mixture.events import Event, StageDone
from serve_app.mixture.moa import answer, direct
from serve_app.mixture.samples import sample_seed

FAILURES_IN_A_ROW = 100
"""A run stops after this many failures with no answer between them: all further rows would fail too."""


class RunStopped(UserError):
    """Too many rows failed one after another; nothing that was answered is lost."""


@dataclass(slots=True)
class GenerateProgress:
    """How far the answering of a set is. A row counts once for each variant that is to answer it."""

    rows: int = 0
    """All rows of the set, answered or not."""

    answered: int = 0
    """Rows that are answered, by this command or by an earlier command."""

    failed: int = 0
    """Rows that failed in this command."""

    degraded: int = 0
    """Rows that this command answered without a model that failed."""


@dataclass(frozen=True, slots=True)
class GenerateTask:
    """Which variants are to answer the rows of a store, and how."""

    variants: Sequence[Variant]
    """The mixtures and single models; each answers every row."""

    seed: int = 0
    """The run's seed; it fixes all sampling."""

    in_flight: int = 1024
    """Most answers in work at once, over all variants."""

    allow_degraded: bool = False
    """Also store answers that lack a proposal because an engine failed."""

    rows: Container[int] | None = None
    """Indices of the rows to answer; None answers all."""

    on_answer: Callable[[str, Row, AnswerEvents], None] = lambda *_: None
    """Gets the name of the variant, the row and the events of each answer to a first turn, just before
    the answer is stored."""


def row_seed(seed: int, row: Row, turn: int) -> int:
    """The seed of the answer to a turn of a row. The seed depends on the run's seed and on the content
    of the row up to the turn, and not on the row's index."""
    asked = json.dumps([seed, list(row.before), row.turns[: turn + 1]])
    return int.from_bytes(hashlib.sha256(asked.encode()).digest()[:4]) >> 1


async def generate(
    task: GenerateTask,
    store: Store,
    calls: StoredCalls,
    on_progress: Callable[[GenerateProgress], None] = lambda _: None,
) -> GenerateProgress:
    """Answer all rows of the store that have no answer yet. If a row fails, a Failure is stored, and
    the other rows go on.

    Args:
        task: the variants; their generators must be in the store already.
        store: has the rows, and gets the answers.
        calls: calls to the models of all variants.
        on_progress: called after each row that was answered or failed.

    Raises:
        RunStopped: FAILURES_IN_A_ROW rows failed one after another.
        StoreError: an answer cannot be stored.
    """
    return await _RowAnswerer(task, store, calls, on_progress).run()


class _RowAnswerer:
    """Answers the rows of one task, and counts how far it is."""

    def __init__(
        self,
        task: GenerateTask,
        store: Store,
        calls: StoredCalls,
        on_progress: Callable[[GenerateProgress], None],
    ) -> None:
        self._task = task
        self._store = store
        self._calls = calls
        self._on_progress = on_progress
        self._failures_in_a_row = 0
        answered = sum(store.answered_count(variant.name) for variant in task.variants)
        self._progress = GenerateProgress(store.row_count() * len(task.variants), answered)

    async def run(self) -> GenerateProgress:
        await work_on_all(self._pending_rows(), self._answer_row, self._task.in_flight)
        return replace(self._progress)

    def _pending_rows(self) -> Iterator[tuple[Variant, Row]]:
        for variant in self._task.variants:
            patient = _without_deadlines(variant)
            for row in self._store.pending_rows(variant.name):
                if self._task.rows is None or row.index in self._task.rows:
                    yield patient, row

    async def _answer_row(self, pending: tuple[Variant, Row]) -> None:
        variant, row = pending
        if row.temperature is not None:
            variant = at_temperature(variant, row.temperature)
        degraded = False
        try:
            for turn in range(len(row.turns)):
                if self._store.answer(variant.name, row.index, turn) is None:
                    degraded |= await self._answer_turn(variant, row, turn)
        except FaultyAnswer as error:
            await self._keep_failure(variant, row, error.missing.cause, str(error))
        except RequestError as error:
            await self._keep_failure(variant, row, error.code, error.message)
        else:
            self._progress.answered += 1
            self._progress.degraded += degraded
            self._failures_in_a_row = 0
        self._on_progress(replace(self._progress))

    async def _answer_turn(self, variant: Variant, row: Row, turn: int) -> bool:
        """Answer a turn and store the answer; return whether the answer lacks a model because of a
        fault.

        Raises:
            FaultyAnswer: there was a fault, and the task does not allow degraded answers.
        """
        began = time.monotonic()
        models = StoredModels(self._calls)
        seed = row_seed(self._task.seed, row, turn)
        messages = self._conversation(variant, row, turn)
        events = AnswerEvents()
        async with aclosing(_start_answer(variant, messages, models, seed)) as stream:
            async for event in stream:
                events.add(event)
                # At the end of a layer all its calls are stored. The work of further layers would be
                # wasted.
                if isinstance(event, StageDone) and events.faults and not self._task.allow_degraded:
                    raise FaultyAnswer(events.faults[0])
        if turn == 0:
            self._task.on_answer(variant.name, row, events)
        await self._store.keep_answer(
            Answer(
                generator=variant.name,
                row=row.index,
                turn=turn,
                text=without_reasoning(events.text),
                used=events.used_calls(models),
                missing=tuple(asdict(missing) for missing in events.summary.missing),
                finish_reason=events.summary.answered.finish_reason,
                seconds=0.0 if models.all_stored else time.monotonic() - began,
                at=time.time(),
            )
        )
        return bool(events.faults)

    def _conversation(self, variant: Variant, row: Row, turn: int) -> list[Message]:
        """The messages up to a turn, with the variant's own answers to the turns before."""
        messages = list(row.before)
        for n in range(turn):
            earlier = self._store.answer(variant.name, row.index, n)
            assert earlier is not None
            messages.append(Message(role="user", content=row.turns[n]))
            messages.append(Message(role="assistant", content=earlier.text))
        return [*messages, Message(role="user", content=row.turns[turn])]

    async def _keep_failure(self, variant: Variant, row: Row, cause: str, detail: str) -> None:
        """Store a failure.

        Raises:
            RunStopped: FAILURES_IN_A_ROW rows have failed one after another by now.
        """
        failure = Failure("generate", variant.name, row.index, cause, detail, at=time.time())
        await self._store.keep_failure(failure)
        self._progress.failed += 1
        # A row that is too long for a model says nothing about the other rows.
        self._failures_in_a_row += cause != ContextTooLong.code
        if self._failures_in_a_row >= FAILURES_IN_A_ROW:
            raise RunStopped(
                f"{FAILURES_IN_A_ROW} rows failed one after another, the last one because of {cause}: "
                f"{detail}; what is answered is kept, and the same command goes on from here"
            )


def _start_answer(
    variant: Variant, messages: Sequence[Message], models: StoredModels, seed: int
) -> AsyncGenerator[Event]:
    """The events of a variant's answer to a conversation."""
    recipe, model = variant.recipe, variant.model
    if model is None:
        return answer(messages, recipe, models, seed=seed, stream_proposals=False)
    # The seed of the model's first sample in layer 1: that proposal and this answer are the same call.
    own_seed = sample_seed(seed, 1, model, 0)
    sampling = sampling_alone(recipe, model).model_copy(update={"seed": own_seed})
    return direct(messages, recipe, models, model, sampling)


def _without_deadlines(variant: Variant) -> Variant:
    """The variant with unlimited time for each answer, because nobody waits for a row of a batch."""
    recipe = variant.recipe
    limits = recipe.limits.model_copy(
        update={"deadline_s": inf, "layer_deadline_s": inf, "grace_s": None}
    )
    aggregator = recipe.aggregator.model_copy(update={"first_token_timeout_s": None})
    changes = {"limits": limits, "aggregator": aggregator}
    return replace(variant, recipe=recipe.model_copy(update=changes))
