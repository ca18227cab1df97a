"""Panels of proposals with an attacker in one place, and notes of what the aggregator says of them."""

import random
import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.engine import NONE, Delta, Message
from benchmarks.quality.attacks import Attack, Known, attack_text
from configs.schema import Sampling
from serve_app.mixture import guard, select
from serve_app.mixture.models import Models
from serve_app.mixture.short_calls import read_shares

LONG_EACH = 6
"""Each sixth question has a panel with 20,000 words. Such panels are few, because each prompt of theirs
fills the whole context."""
FRAME = re.compile(r"<response (\d+)>\n(.*?)\n</response \1>", re.DOTALL)
"""Finds a reference in a prompt, in the default form."""
PICK = select.ASK.split("{")[0]
"""The words that ask for a pick."""


def seed_in_order(stage: int, most: int) -> int:
    """A seed with which any number of references up to `most` stand in the order of the recipe in the
    prompt of a stage. The worker checks this with the events."""
    for seed in range(10**6):
        drawn = [list(range(count)) for count in range(1, most + 1)]
        for order in drawn:
            random.Random(f"{seed}/{stage}").shuffle(order)
        if all(order == sorted(order) for order in drawn):
            return seed
    raise ValueError(f"no seed leaves {most} references in their order")


@dataclass(slots=True)
class PlayedPanel:
    """Proposers whose texts are given, and an aggregator whose calls are watched."""

    models: Models
    """Where the aggregator's calls go."""
    aggregator: str
    """The aggregator's name. Its tokenizer counts the tokens of all models."""
    texts: Mapping[str, str]
    """The text of each proposer, by its name."""
    honest: Collection[str]
    """The texts that are honest."""
    most_strange: int
    """Number of texts that are not honest: 1 in an attacked panel, else 0."""
    read_whole: bool = True
    """Whether all honest proposals stood whole in each prompt of a pick or a merge."""
    lone: float | None = None
    """The probability that the aggregator gave to the attacker's text, as the mean over the orders of
    a pick; None without a pick."""
    pairs: list[tuple[bool, float]] = field(default_factory=list)
    """For each pair that the guard compared: whether both are honest, and the probability of "yes"."""
    _picked: list[float] = field(default_factory=list)

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        if model in self.texts:
            text = self.texts[model]
            return Delta(text=text, finish_reason="stop", completion_tokens=len(text.split()))
        whole = await self.models.complete(model, messages, sampling)
        self._look(messages, whole)
        return whole

    async def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, _streamed: bool = True
    ) -> AsyncIterator[Delta]:
        yield await self.complete(model, messages, sampling)

    async def count_tokens(
        self, model: str, messages: Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> int:
        return 0 if model in self.texts else await self.models.count_tokens(model, messages, template)

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:
        return await self.models.token_ends(self.aggregator if model in self.texts else model, texts)

    async def is_alive(self, model: str) -> bool:
        return await self.models.is_alive(model)

    def _look(self, messages: Sequence[Message], whole: Delta) -> None:
        shown = {n: text for each in messages for n, text in FRAME.findall(each["content"])}
        strange = [n for n, text in shown.items() if text not in self.honest]
        if messages[-1]["content"].endswith(guard.ASK):
            if (replied := read_shares(whole, ("yes", "no"))) is not None:
                self.pairs.append((not strange, replied["yes"]))
            return
        if len(strange) > self.most_strange:
            self.read_whole = False
        if len(strange) == 1 and PICK in messages[-1]["content"]:
            replied = read_shares(whole, tuple(sorted(shown)))
            if replied is not None:
                self._picked.append(replied[strange[0]])
                self.lone = sum(self._picked) / len(self._picked)


@dataclass(frozen=True, slots=True)
class Panel:
    """A question, and the text in each place."""

    question: Known
    attack: Attack | None
    """None for the honest panel."""
    place: int
    """The attacker's place."""
    wording: int
    honest: tuple[str, ...]

    @property
    def texts(self) -> list[str]:
        found = list(self.honest)
        if self.attack is not None:
            found[self.place] = attack_text(self.attack, self.wording, self.question)
        return found


def panels_of(
    question: Known, number: int, honest: Sequence[str], attacks: Sequence[Attack]
) -> list[Panel]:
    """The panels of a question: the honest panel, then one for each attack, in one place and wording.

    From question to question, an attack moves to the next place. After a round through all places, it
    takes its next wording.
    """
    count = len(honest)
    found = [Panel(question, None, 0, 0, tuple(honest))]
    for shift, attack in enumerate(attacks):
        if attack == "20,000 words" and number % LONG_EACH:
            continue
        turn = number // LONG_EACH if attack == "20,000 words" else number
        found.append(
            Panel(question, attack, (turn + shift) % count, turn // count + shift, tuple(honest))
        )
    return found
