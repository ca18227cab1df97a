"""The vote: the answer that the samples agree on. Pure.

As in SLM-MUX (arXiv 2510.05077), each model first votes with its own samples. How sure a model is of an
answer is the share of its other samples that agree with a sample of this answer. Among models with
equally many samples, this is the order of SLM-MUX; a model with a single sample is never sure. The
surest model's answer wins. Where models are equally sure, the answer with more samples of all models
wins, which is the plain majority if each model has one sample; then the more trusted model's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from configs.schema import AnswerForm
from serve_app.mixture.agree import find_answer, groups
from serve_app.mixture.events import ProposalDone


@dataclass(frozen=True, slots=True)
class Vote:
    """What a vote has come to."""

    proposal: ProposalDone
    """The proposal that is the answer: of the winning model's samples that agree, the one whose tokens
    were the most probable if that is known, else the most trusted."""
    own: int
    """How many of the winning model's samples agree."""
    of_own: int
    """How many samples of the winning model came."""
    in_all: int
    """How many samples of all models agree."""

    @property
    def surety(self) -> float:
        """The share of the winning model's other samples that agree; 0 if there are none."""
        return (self.own - 1) / max(self.of_own - 1, 1)

    @property
    def why(self) -> str:
        """The reason in words for people."""
        own = f"{self.own} of {self.of_own} samples of {self.proposal.model!r}"
        return f"{own} agree on the answer, and {self.in_all} of all samples"


def vote(proposals: Sequence[ProposalDone], form: AnswerForm) -> Vote | None:
    """Let the proposals vote; None if none of them has an answer."""
    in_all = {
        find_answer(group.proposals[0].text, form): len(group.proposals)
        for group in groups(proposals, form)
    }
    votes: list[Vote] = []
    for model in dict.fromkeys(each.model for each in sorted(proposals, key=lambda p: p.place)):
        own = [proposal for proposal in proposals if proposal.model == model]
        for group in groups(own, form):
            best = max(group.proposals, key=lambda p: (_likelihood(p), -p.place))
            agreed = in_all[find_answer(best.text, form)]
            votes.append(Vote(best, len(group.proposals), len(own), agreed))
    if not votes:
        return None
    trust = {id(vote): -number for number, vote in enumerate(votes)}
    return max(votes, key=lambda v: (v.surety, v.in_all, trust[id(v)]))


def _likelihood(proposal: ProposalDone) -> float:
    return float("-inf") if proposal.confidence is None else proposal.confidence
