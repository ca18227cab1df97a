"""What is remembered of one answer: its seed's draws, its summary, and why it failed if it did."""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from configs.errors import (
    ContextTooLong,
    DeadlineExceeded,
    Overloaded,
    QuorumNotMet,
    RequestError,
)
from serve_app.mixture.events import (
    Answered,
    Call,
    Event,
    Missing,
    ProposalDone,
    ProposalDropped,
    Retried,
    Spent,
    StageDone,
    Summary,
    Trimmed,
)

# If a layer's proposers all fail in the same way, the error says that rather than "no quorum".
SHARED_CAUSES: dict[str, type[RequestError]] = {
    "late": DeadlineExceeded,
    ContextTooLong.code: ContextTooLong,
    Overloaded.code: Overloaded,
}


class SummaryBuilder:
    """Takes in the events of one answer. seed: decides the order of references."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._missing: list[Missing] = []
        self._trimmed: list[Trimmed] = []
        self._retried: list[Retried] = []
        self._stages: list[StageDone] = []
        self._calls: list[Call] = []
        self._answered: Answered | None = None

    async def stage(self, name: str, events: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
        """The events of a stage, remembered as they pass, and its StageDone. Closing it closes them."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with aclosing(events):
            async for event in events:
                self._note(event)
                yield event
        first_s = self._answered.first_s if self._answered else None
        done = StageDone(name, loop.time() - began, first_s)
        self._stages.append(done)
        yield done

    def ordered(self, proposals: Sequence[ProposalDone], stage: int) -> list[str]:
        """The proposals' texts in the seed's order for a stage, so that no model has a fixed place."""
        texts = [p.text for p in proposals]
        random.Random(f"{self.seed}/{stage}").shuffle(texts)
        return texts

    def no_quorum(self, got: int, needed: int) -> RequestError:
        """The error of a layer with too few proposals: each cause by name."""
        causes = "; ".join(f"{m.model}: {m.cause}: {m.detail}" for m in self._missing)
        message = f"{needed} proposals are needed and {got} came ({causes})"
        kinds = {m.cause for m in self._missing}
        error = SHARED_CAUSES.get(kinds.pop(), QuorumNotMet) if len(kinds) == 1 else QuorumNotMet
        param = "messages" if error is ContextTooLong else None
        return error(message, model=self._missing[0].model, param=param)

    def summary(self) -> Summary:
        """How the answer came about; to be asked for when it is complete."""
        assert self._answered is not None
        return Summary(
            seed=self.seed,
            answered=self._answered,
            missing=tuple(self._missing),
            trimmed=tuple(self._trimmed),
            retried=tuple(self._retried),
            stages=tuple(self._stages),
            calls=tuple(self._calls),
        )

    def _note(self, event: Event) -> None:
        match event:
            case ProposalDone() | Spent():
                self._calls.append(event.call)
            case ProposalDropped():
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
