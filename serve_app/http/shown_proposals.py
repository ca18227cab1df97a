"""The proposals of a streamed answer as one text that only grows, for clients that show reasoning.

Chat clients show the reasoning of a model in a fold of its own while it grows. They know nothing of
several models that write side by side, so the proposals are shown one after the other:

1. The first proposal that has text leads: it is shown as it grows.
2. When the leading proposal has ended, those that have ended meanwhile follow, whole.
3. Then the one that has the most text leads.

A proposal that is dropped is named with its cause where its turn comes; text of it that was shown
stays. A text that has been shown is never taken back. The alternative, each proposal whole when it has
ended, shows nothing for the whole time of the first proposal.

Many clients show reasoning as Markdown, and others as plain text. A block of code that a proposal
leaves open is closed behind it, so that the block does not swallow what follows.
"""

import re
from dataclasses import dataclass

from serve_app.mixture.events import (
    NOT_NEEDED,
    AnswerDelta,
    Event,
    ProposalDelta,
    ProposalDone,
    ProposalDropped,
    StageStarted,
)

RULE = "\n\n---\n\n"
"""A line between two proposals, because headings within a proposal may be larger than the one over
it."""
FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})(.*)$", re.MULTILINE)
"""A line that begins or ends a block of code in Markdown (CommonMark 4.5)."""


@dataclass(slots=True)
class _Proposal:
    """One proposal, as far as it is known."""

    heading: str
    text: str = ""
    shown: int = 0
    """How many characters of the text were shown."""
    has_ended: bool = False
    note: str = ""
    """Why it is dropped; empty for a proposal that counts."""

    def complete(self, text: str) -> None:
        """Take in the whole text, which has no reasoning and no blanks around it."""
        shown = self.text[: self.shown]
        if not self.shown:
            self.text = text
        elif self.text.rstrip().endswith(text):
            self.text = self.text.rstrip()
        elif text.startswith(shown):
            self.text = text
        else:  # another replica has written it anew, and otherwise
            self.text = f"{shown}\n\n{text}"


class ShownProposals:
    """Turns the events of an answer into the text that is shown as its reasoning.

    Args:
        layers: how many layers the mixture has.
    """

    def __init__(self, layers: int) -> None:
        self._layers = layers
        self._layer = 0
        self._waiting: dict[int, _Proposal] = {}
        """Proposals of the layer that were not shown whole, by place; those that have ended stand in
        the order in which they ended, before all others."""
        self._leader: int | None = None
        self._began = False
        self._writer = ""
        """Heading of the reasoning of the model that writes the answer, until it is shown."""

    def take(self, event: Event) -> str:
        """The text to show after this event; empty if there is none."""
        match event:
            case StageStarted(stage="aggregator"):
                self._writer = self._heading(f"{event.models[0]} thinks")
            case StageStarted():
                self._layer += 1
                total = len(event.models)
                places = enumerate(event.models)
                self._waiting = {n: _Proposal(self._label(model, n, total)) for n, model in places}
                self._leader = None
            case ProposalDelta():
                return self._grow(event.place, event.text)
            case ProposalDone():
                return self._end(event.place, event.text, "")
            case ProposalDropped() if event.missing.cause == NOT_NEEDED:
                return self._spare(event.place)
            case ProposalDropped():
                missing = event.missing
                return self._end(event.place, None, f"dropped: {missing.cause}: {missing.detail}")
            case AnswerDelta() if event.delta.reasoning and self._writer:
                heading, self._writer = self._writer, ""
                return self._open(heading)
        return ""

    def _spare(self, place: int) -> str:
        """End a proposal that is not waited for. If nothing of it was shown, it is not named either."""
        if place == self._leader:
            return self._end(place, None, "not needed: the answer was there before")
        self._waiting.pop(place, None)
        return ""

    def _label(self, model: str, place: int, total: int) -> str:
        layer = f"layer {self._layer}, " if self._layers > 1 else ""
        return self._heading(f"{model} ({layer}proposal {place + 1} of {total})")

    def _heading(self, words: str) -> str:
        return f"**{words}**\n\n"

    def _open(self, heading: str) -> str:
        rule = RULE if self._began else ""
        self._began = True
        return rule + heading

    def _grow(self, place: int, text: str) -> str:
        proposal = self._waiting.get(place)
        if proposal is None or proposal.has_ended:
            return ""
        proposal.text += text
        if self._leader is None and proposal.text.strip():
            return self._lead(place)
        return self._show(proposal) if place == self._leader else ""

    def _end(self, place: int, text: str | None, note: str) -> str:
        proposal = self._waiting.get(place)
        if proposal is None:  # it was shown whole, and is dropped after all
            return f"\n\n*{note}*" if note else ""
        if text is not None:
            proposal.complete(text)
        proposal.has_ended, proposal.note = True, note
        if self._leader not in (None, place):
            self._queue(place)
            return ""
        shown = ""
        if self._leader is None:
            shown = self._open(proposal.heading)
        self._leader = None
        return shown + self._close(place) + self._follow()

    def _queue(self, place: int) -> None:
        """Put a proposal that has ended behind the others that have, and before all that have not."""
        proposal = self._waiting.pop(place)
        ended = {n: p for n, p in self._waiting.items() if p.has_ended}
        others = {n: p for n, p in self._waiting.items() if not p.has_ended}
        self._waiting = {**ended, place: proposal, **others}

    def _follow(self) -> str:
        """Show what has ended meanwhile, and then what the next leader has."""
        shown = ""
        for place in [n for n, proposal in self._waiting.items() if proposal.has_ended]:
            shown += self._open(self._waiting[place].heading) + self._close(place)
        growing = [n for n, proposal in self._waiting.items() if proposal.text.strip()]
        if growing:
            shown += self._lead(max(growing, key=lambda n: len(self._waiting[n].text)))
        return shown

    def _lead(self, place: int) -> str:
        self._leader = place
        proposal = self._waiting[place]
        proposal.text = proposal.text.lstrip()
        return self._open(proposal.heading) + self._show(proposal)

    def _close(self, place: int) -> str:
        proposal = self._waiting.pop(place)
        gap = "\n\n" if proposal.text.strip() else ""
        note = f"{gap}*{proposal.note}*" if proposal.note else ""
        return self._show(proposal) + open_block_end(proposal.text) + note

    def _show(self, proposal: _Proposal) -> str:
        more = proposal.text[proposal.shown :]
        proposal.shown = len(proposal.text)
        return more


def open_block_end(text: str) -> str:
    """What closes the block of code that a Markdown text leaves open; empty if there is none."""
    fence = ""
    for found in FENCE.finditer(text):
        marks, behind = found[1], found[2]
        if not fence:
            fence = marks if marks[0] == "~" or "`" not in behind else ""
        elif marks.startswith(fence) and not behind.strip():
            fence = ""
    return f"\n{fence}" if fence else ""
