"""Events and summary of a mixture -> the `moa` objects that clients receive."""

from collections.abc import Sequence
from dataclasses import asdict

from configs.extra_parameters import SENT_AS
from serve_app.http.event_schema import (
    AggregatorFailedEvent,
    DecidedEvent,
    MoaEvent,
    ProposalDeltaEvent,
    ProposalDoneEvent,
    ProposalDroppedEvent,
    ProposalThinksEvent,
    RetriedEvent,
    StageDoneEvent,
    StageStartedEvent,
    TrimmedEvent,
)
from serve_app.http.moa_fields import ReferenceFrom
from serve_app.http.routed import Routed
from serve_app.http.summary_schema import (
    MissingModel,
    MoaSummary,
    RetriedCall,
    RoutedRequest,
    StageTime,
    TrimmedReferences,
)
from serve_app.mixture.events import (
    Decided,
    Event,
    Missing,
    ProposalDelta,
    ProposalDone,
    ProposalDropped,
    ProposalThinks,
    Reference,
    Retried,
    StageDone,
    StageStarted,
    Summary,
    Trimmed,
)

SECONDS_DIGITS = 4
"""Digits after the decimal point of seconds in answers. Times here vary by more than 0.1 ms from one
run to the next, so more digits would say nothing."""
LOGPROB_DIGITS = 4
"""Digits after the decimal point of log-probabilities."""


def moa_event(event: Event) -> MoaEvent | None:
    """The `moa` object of an event; None for an event that streams show in another way or never."""
    match event:
        case ProposalDelta() | ProposalThinks() | ProposalDone() | ProposalDropped():
            return _of_proposal(event)
        case Missing():
            return AggregatorFailedEvent(type="aggregator.failed", **asdict(event))
        case Decided():
            chosen = None if event.chosen is None else _references([event.chosen])[0]
            return DecidedEvent(type="decided", method=event.method, why=event.why, chosen=chosen)
        case Trimmed():
            return TrimmedEvent(type="trimmed", **asdict(event))
        case Retried():
            return RetriedEvent(type="retried", **asdict(event))
        case StageStarted():
            return StageStartedEvent(
                type="stage.started",
                stage=event.stage,
                models=list(event.models),
                references=_references(event.references),
                at_s=rounded(event.at_s),
            )
        case StageDone():
            return StageDoneEvent(type="stage.done", **_stage_time(event).model_dump())
    return None


def _of_proposal(
    event: ProposalDelta | ProposalThinks | ProposalDone | ProposalDropped,
) -> ProposalDeltaEvent | ProposalThinksEvent | ProposalDoneEvent | ProposalDroppedEvent:
    match event:
        case ProposalDelta():
            return ProposalDeltaEvent(
                type="proposal.delta",
                layer=event.layer,
                place=event.place,
                model=event.model,
                text=event.text,
            )
        case ProposalThinks():
            return ProposalThinksEvent(type="proposal.thinks", **asdict(event))
        case ProposalDone():
            return moa_proposal(event)
        case ProposalDropped():
            missing = asdict(event.missing)
            seconds = rounded(event.seconds)
            return ProposalDroppedEvent(
                type="proposal.dropped", place=event.place, **missing, seconds=seconds
            )


def moa_proposal(event: ProposalDone) -> ProposalDoneEvent:
    """The `moa` object of a complete proposal."""
    moa = ProposalDoneEvent(
        type="proposal.done",
        layer=event.layer,
        place=event.place,
        model=event.model,
        text=event.text,
        seconds=rounded(event.seconds),
        first_s=None if event.first_s is None else rounded(event.first_s),
        engine_s=rounded(event.call.engine_s),
        completion_tokens=event.call.completion_tokens,
    )
    if event.confidence is not None:
        moa.confidence = round(event.confidence, LOGPROB_DIGITS)
    return moa


def moa_summary(
    summary: Summary,
    ignored: Sequence[str],
    proposals: Sequence[ProposalDone] | None,
    routed: Routed | None = None,
) -> MoaSummary:
    """The `moa` object at the end of an answer.

    Args:
        summary: How the answer came about.
        ignored: Names of what the request has and no model sees. If there are none, the object has no
            field `ignored`.
        proposals: The complete proposals, to show them in the object. With None the object has no field
            `proposals`.
        routed: Why one model has answered in place of the mixture. With None the object has no field
            `routed`.
    """
    answered = summary.answered
    moa = MoaSummary(
        type="summary",
        degraded=summary.degraded,
        missing=[MissingModel(**asdict(missing)) for missing in summary.missing],
        answered_by=answered.model,
        fallback=answered.fallback,
        cut=answered.cut,
        trimmed=[TrimmedReferences(**asdict(trimmed)) for trimmed in summary.trimmed],
        retried=[RetriedCall(**asdict(retried)) for retried in summary.retried],
        stages=[_stage_time(stage) for stage in summary.stages],
        seed=summary.seed,
        order=summary.order,
        method=answered.method,
    )
    # Only fields that are set reach the JSON.
    if answered.why:
        moa.why = answered.why
    if answered.chosen is not None:
        moa.chosen = _references([answered.chosen])[0]
    if answered.unheld:
        moa.unheld = [SENT_AS.get(name, name) for name in answered.unheld]
    if ignored:
        moa.ignored = list(ignored)
    if routed is not None:
        moa.routed = RoutedRequest(**asdict(routed))
    if proposals is not None:
        moa.proposals = [moa_proposal(proposal) for proposal in proposals]
    return moa


def rounded(seconds: float) -> float:
    """The seconds, rounded to the digits that answers show."""
    return round(seconds, SECONDS_DIGITS)


def _stage_time(event: StageDone) -> StageTime:
    first_s = None if event.first_s is None else rounded(event.first_s)
    return StageTime(
        stage=event.stage,
        seconds=rounded(event.seconds),
        first_s=first_s,
        at_s=rounded(event.at_s),
        references=_references(event.references),
    )


def _references(references: Sequence[Reference]) -> list[ReferenceFrom]:
    return [ReferenceFrom(layer=read.layer, place=read.place) for read in references]
