"""Sums up the events of one answer."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from serve_app.mixture.events import (
    NOT_NEEDED,
    Answered,
    Call,
    Event,
    Judged,
    Missing,
    OrderMode,
    ProposalDone,
    ProposalDropped,
    Reference,
    Retried,
    Spent,
    StageDone,
    StageStarted,
    Summary,
    Trimmed,
)


class SummaryBuilder:
    """Takes in the events of one answer, stage by stage, and builds its summary."""

    def __init__(self, seed: int, order: OrderMode | None = None) -> None:
        self.seed = seed
        """The seed that decides the order of the references."""
        self._order = order
        self._missing: list[Missing] = []
        self._trimmed: list[Trimmed] = []
        self._retried: list[Retried] = []
        self._stages: list[StageDone] = []
        self._calls: list[Call] = []
        self._read: list[int] = []
        """Tokens of the prompts of the calls that answered."""
        self._conversation_tokens = 0
        self._answered: Answered | None = None
        self._began = asyncio.get_running_loop().time()

    async def stage(
        self,
        name: str,
        models: Sequence[str],
        references: Sequence[ProposalDone],
        events: AsyncGenerator[Event],
    ) -> AsyncGenerator[Event]:
        """Give the `StageStarted` of a stage (`events.py` says of which), pass on its events and take
        them in, then give its `StageDone`.

        Closing this generator closes `events`.

        Args:
            name: name of the stage, as in `StageDone`.
            models: as in `StageStarted`.
            references: the proposals that the models of the stage read, in the order of the prompt.
            events: the events of the stage.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        at_s = began - self._began
        order = tuple(Reference(proposal.layer, proposal.place) for proposal in references)
        async with aclosing(events):
            if name != "direct":
                yield StageStarted(name, tuple(models), order, at_s)
            async for event in events:
                self._take(event)
                yield event
        first_s = self._answered.first_s if self._answered else None
        done = StageDone(name, loop.time() - began, first_s, at_s, order)
        if not self._stages:  # later stages read references too
            read = self._read or [call.prompt_tokens for call in self._calls]
            self._conversation_tokens = max(read, default=0)
        self._stages.append(done)
        yield done

    def build(self) -> Summary:
        """The summary of a complete answer. To be called after its `Answered` was taken in."""
        assert self._answered is not None
        return Summary(
            seed=self.seed,
            answered=self._answered,
            missing=tuple(self._missing),
            trimmed=tuple(self._trimmed),
            retried=tuple(self._retried),
            stages=tuple(self._stages),
            calls=tuple(self._calls),
            conversation_tokens=self._conversation_tokens,
            order=self._order,
        )

    def _take(self, event: Event) -> None:
        match event:
            case ProposalDone() | Spent():
                self._calls.append(event.call)
                self._read.append(event.call.prompt_tokens)
            case Judged():  # reads references too
                self._calls.append(event.call)
            case ProposalDropped():
                if event.missing.cause != NOT_NEEDED:
                    self._missing.append(event.missing)
            case Missing():
                self._missing.append(event)
            case Trimmed():
                self._trimmed.append(event)
            case Retried():
                self._retried.append(event)
            case Answered():
                self._answered = event
                if event.call is not None:
                    self._calls.append(event.call)
                    self._read.append(event.call.prompt_tokens)
