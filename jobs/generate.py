"""Answering a set: all rows in flight up to a bound, each answer kept as soon as it is there.

What order the engines work in is left to the slots' turns: with all rows waiting, a run over M models
in one slot costs about M swaps. Nothing here knows of Ray.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from math import inf

from actors.engine import Message
from configs.errors import ContextTooLong, EmptyAnswer, QuorumNotMet, RequestError, UserError
from configs.schema import Recipe, Sampling
from jobs.identity import short_hash
from jobs.records import Answer, Failure, Generator, Row, Used
from jobs.store import Store
from jobs.stored_calls import StoredCalls, StoredModels
from jobs.variants import Variant
from serve_app.mixture.events import (
    AnswerDelta,
    AnswerDone,
    Call,
    Event,
    Missing,
    ProposalDone,
    ProposalDropped,
    StageDone,
    Summary,
)
from serve_app.mixture.moa import answer, direct, place_seed
from serve_app.mixture.references import without_reasoning

# What a model did of its own, and would do again; `quorum_not_met` only follows from the others. Such
# an answer is whole, though not all took part. For any other cause the next run tries the row again.
OWN_CAUSES = {EmptyAnswer.code, ContextTooLong.code, QuorumNotMet.code}
FAILURES_IN_A_ROW = 100


class RunStopped(UserError):
    """So many rows failed one after another that going on makes no sense; nothing is lost."""


@dataclass(slots=True)
class GenerateProgress:
    """How a generation stands. rows: to be answered, those of earlier runs included, over all
    variants; answered: of them; failed: in this run; degraded: answered in this run without all."""

    rows: int = 0
    answered: int = 0
    failed: int = 0
    degraded: int = 0


@dataclass(frozen=True, slots=True)
class GenerateTask:
    """What is to be answered, and how.

    variants: by whom; seed: of the run, fixes all sampling; in_flight: most answers at once, over all
    variants; allow_degraded: also keep answers that faults of engines made poorer.
    """

    variants: Sequence[Variant]
    seed: int = 0
    in_flight: int = 1024
    allow_degraded: bool = False


def generator_of(variant: Variant, identities: Mapping[str, str], seed: int) -> Generator:
    """A variant as the store knows it. identities: of the recipe's models.

    The recipe's limits, cards and description have no part in the identity: they change how a run
    goes, not what is asked.
    """
    recipe = variant.recipe
    kept = recipe.model_dump(mode="json", exclude_defaults=True)
    if variant.model is None:
        asked = recipe.model_dump(mode="json", include={"layers", "aggregator", "references"})
        used = {name: identities[name] for name in sorted(models_of(variant))}
        return Generator(variant.name, "mixture", short_hash([asked, used, seed]), {"recipe": kept})
    sampling = sampling_alone(recipe, variant.model).model_dump(mode="json")
    identity = short_hash([variant.model, identities[variant.model], sampling, seed])
    return Generator(variant.name, "model", identity, {"model": kept["models"][variant.model]})


def models_of(variant: Variant) -> set[str]:
    """Names of the models that a variant asks."""
    if variant.model is not None:
        return {variant.model}
    recipe = variant.recipe
    return {proposer.model for proposer in recipe.proposers()} | set(recipe.aggregators)


def sampling_alone(recipe: Recipe, model: str) -> Sampling:
    """How a model is sampled alone: as its first place in the recipe, so that what it proposed is its
    answer; as the aggregator, if it proposes nowhere."""
    proposers = (p for p in recipe.proposers() if p.model == model)
    first = next(proposers, None)
    return recipe.aggregator.sampling if first is None else first.sampling


def row_seed(seed: int, row: Row, turn: int) -> int:
    """The seed of an answer: by the run's seed and the row's content, not by its place in the set."""
    asked = json.dumps([seed, list(row.before), row.turns[: turn + 1]])
    return int.from_bytes(hashlib.sha256(asked.encode()).digest()[:4]) >> 1


async def generate(
    task: GenerateTask,
    store: Store,
    calls: StoredCalls,
    on_answer: Callable[[GenerateProgress], None] = lambda _: None,
) -> GenerateProgress:
    """Answer all rows of the store that have no answer yet. The generators are in the store already.

    A row that fails is kept as a Failure; the others go on.

    Raises:
        RunStopped: see there.
        StoreError: an answer cannot be kept.
    """
    return await _Run(task, store, calls, on_answer).run()


class _Run:
    def __init__(
        self,
        task: GenerateTask,
        store: Store,
        calls: StoredCalls,
        on_answer: Callable[[GenerateProgress], None],
    ) -> None:
        self._task, self._store, self._calls, self._on_answer = task, store, calls, on_answer
        self._in_a_row = 0
        done = sum(store.answered(variant.name) for variant in task.variants)
        self._so_far = GenerateProgress(store.row_count() * len(task.variants), done)

    async def run(self) -> GenerateProgress:
        waiting = self._waiting()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._task.in_flight):
                    group.create_task(self._work(waiting))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return replace(self._so_far)

    def _waiting(self) -> Iterator[tuple[Variant, Row]]:
        for variant in self._task.variants:
            batch = _for_batch(variant)
            for row in self._store.pending(variant.name):
                yield batch, row

    async def _work(self, waiting: Iterator[tuple[Variant, Row]]) -> None:
        for variant, row in waiting:
            await self._settle(variant, row)
            self._on_answer(replace(self._so_far))

    async def _settle(self, variant: Variant, row: Row) -> None:
        degraded = False
        try:
            for turn in range(len(row.turns)):
                if self._store.answer(variant.name, row.index, turn) is None:
                    degraded |= await self._answer(variant, row, turn)
        except _Faulty as error:
            await self._fail(variant, row, error.missing.cause, str(error))
        except RequestError as error:
            await self._fail(variant, row, error.code, error.message)
        else:
            self._so_far.answered += 1
            self._so_far.degraded += degraded
            self._in_a_row = 0

    async def _answer(self, variant: Variant, row: Row, turn: int) -> bool:
        """Answer a turn; whether faults made the answer poorer."""
        began = time.monotonic()
        models, seed = StoredModels(self._calls), row_seed(self._task.seed, row, turn)
        told = _Told()
        async with aclosing(_events(variant, self._said(variant, row, turn), models, seed)) as events:
            async for event in events:
                told.note(event)
                # A layer is through, and what it wrote is stored; the next would work for nothing.
                if isinstance(event, StageDone) and told.faults and not self._task.allow_degraded:
                    raise _Faulty(told.faults[0])
        summary = told.summary()
        seconds = 0.0 if models.all_stored else time.monotonic() - began
        await self._store.keep_answer(
            Answer(
                variant.name,
                row.index,
                turn,
                without_reasoning("".join(told.text)),
                told.used(models),
                tuple(asdict(missing) for missing in summary.missing),
                summary.answered.finish_reason,
                seconds,
                time.time(),
            )
        )
        return bool(told.faults)

    def _said(self, variant: Variant, row: Row, turn: int) -> list[Message]:
        """The conversation up to a turn, with the variant's own answers to those before."""
        said = list(row.before)
        for n in range(turn):
            earlier = self._store.answer(variant.name, row.index, n)
            assert earlier is not None
            said.append(Message(role="user", content=row.turns[n]))
            said.append(Message(role="assistant", content=earlier.text))
        return [*said, Message(role="user", content=row.turns[turn])]

    async def _fail(self, variant: Variant, row: Row, cause: str, detail: str) -> None:
        failure = Failure("generate", variant.name, row.index, cause, detail, at=time.time())
        await self._store.keep_failure(failure)
        self._so_far.failed += 1
        self._in_a_row += cause != ContextTooLong.code
        if self._in_a_row >= FAILURES_IN_A_ROW:
            raise RunStopped(
                f"{FAILURES_IN_A_ROW} rows failed one after another, the last one because of {cause}: "
                f"{detail}; what is answered is kept, and the same command goes on from here"
            )


class _Faulty(Exception):
    """An answer came about without a model that failed."""

    def __init__(self, missing: Missing) -> None:
        super().__init__(f"model {missing.model!r}: {missing.detail}")
        self.missing = missing


class _Told:
    """What an answer's events told of it. faults: of engines, that made it poorer."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.faults: list[Missing] = []
        self._proposals: dict[tuple[int, int], Call] = {}
        self._summary: Summary | None = None

    def note(self, event: Event) -> None:
        match event:
            case ProposalDone():
                self._proposals[event.layer, event.place] = event.call
            case ProposalDropped():
                self._proposals.pop((event.missing.layer, event.place), None)
                self._miss(event.missing)
            case Missing():
                self._miss(event)
            case AnswerDelta():
                self.text.append(event.delta.text)
            case AnswerDone():
                self._summary = event.summary

    def _miss(self, missing: Missing) -> None:
        if missing.cause not in OWN_CAUSES:
            self.faults.append(missing)

    def summary(self) -> Summary:
        assert self._summary is not None
        return self._summary

    def used(self, models: StoredModels) -> tuple[Used, ...]:
        """The calls that the answer is made of, the last one first."""
        calls = [(place, call) for place, call in sorted(self._proposals.items())]
        if (last := self.summary().answered.call) is not None:
            calls.insert(0, ((0, 0), last))
        return tuple(
            Used(*place, call.model, models.keys[call.model, call.seed]) for place, call in calls
        )


def _events(
    variant: Variant, messages: Sequence[Message], models: StoredModels, seed: int
) -> AsyncGenerator[Event]:
    recipe, model = variant.recipe, variant.model
    if model is None:
        return answer(messages, recipe, models, seed=seed, watched=False)
    own = place_seed(seed, 1, model, 0)
    sampling = sampling_alone(recipe, model).model_copy(update={"seed": own})
    return direct(messages, recipe, models, model, sampling)


def _for_batch(variant: Variant) -> Variant:
    """Nobody waits for a row of a batch, so nothing in it is ever late."""
    recipe = variant.recipe
    limits = recipe.limits.model_copy(
        update={"deadline_s": inf, "layer_deadline_s": inf, "grace_s": None}
    )
    aggregator = recipe.aggregator.model_copy(update={"first_token_timeout_s": None})
    changes = {"limits": limits, "aggregator": aggregator}
    return replace(variant, recipe=recipe.model_copy(update=changes))
