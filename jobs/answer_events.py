"""What the events of one answer tell about it: its text, the calls behind it, and what went wrong."""

from collections.abc import Mapping

from configs.errors import ContextTooLong, EmptyAnswer, OnlyReasoning, QuorumNotMet
from jobs.records import UsedCall
from jobs.stored_calls import StoredModels
from serve_app.mixture.events import (
    NOT_NEEDED,
    AnswerDelta,
    AnswerDone,
    Call,
    Event,
    Missing,
    ProposalDone,
    ProposalDropped,
    Summary,
)

OWN_CAUSES = {
    EmptyAnswer.code,
    OnlyReasoning.code,
    ContextTooLong.code,
    QuorumNotMet.code,
    NOT_NEEDED,
}
"""Causes of a missing contribution that would repeat on a retry, because they follow from the prompt
and the model's own output. `quorum_not_met` only follows from other missing contributions. An answer
that lacks contributions for these causes alone is final. Any other cause is a fault: unless answers may
be degraded, the next command tries the row again."""


class FaultyAnswer(Exception):
    """An answer would lack the contribution of a model that failed."""

    def __init__(self, missing: Missing) -> None:
        super().__init__(f"model {missing.model!r}: {missing.detail}")
        self.missing = missing


class AnswerEvents:
    """Collects the events of one answer."""

    def __init__(self) -> None:
        self.faults: list[Missing] = []
        """The missing contributions whose cause is not in OWN_CAUSES, in the order of the events."""

        self._text: list[str] = []
        self._proposals: dict[tuple[int, int], Call] = {}
        self._summary: Summary | None = None

    def add(self, event: Event) -> None:
        match event:
            case ProposalDone():
                self._proposals[event.layer, event.place] = event.call
            case ProposalDropped():
                self._proposals.pop((event.missing.layer, event.place), None)
                self._add_missing(event.missing)
            case Missing():
                self._add_missing(event)
            case AnswerDelta():
                self._text.append(event.delta.text)
            case AnswerDone():
                self._summary = event.summary

    def _add_missing(self, missing: Missing) -> None:
        if missing.cause not in OWN_CAUSES:
            self.faults.append(missing)

    @property
    def text(self) -> str:
        """The answer's text so far, with any reasoning that the model wrote into the text."""
        return "".join(self._text)

    @property
    def summary(self) -> Summary:
        """The summary of a finished answer."""
        assert self._summary is not None
        return self._summary

    @property
    def proposal_calls(self) -> Mapping[tuple[int, int], Call]:
        """The calls that wrote the proposals that are used, by layer and place."""
        return self._proposals

    def used_calls(self, models: StoredModels) -> tuple[UsedCall, ...]:
        """The calls that a finished answer is made of.

        The call that wrote the answer comes first, if there is such a call. The calls that wrote the
        proposals follow by layer and place.

        Args:
            models: The models that the answer was made with, which know the keys of the answer's calls.
        """
        calls = sorted(self._proposals.items())
        if (last := self.summary.answered.call) is not None:
            calls.insert(0, ((0, 0), last))
        return tuple(
            UsedCall(layer, place, call.model, models.keys[call.model, call.seed])
            for (layer, place), call in calls
        )
