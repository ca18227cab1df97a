"""The figures of answers with and without overlap, paired question by question."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.shared.harness import percentile, report

Variant = tuple[str, str, str, str]
"""How questions are answered: config, panel, style, order."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one answer of `overlap.py` showed. Times are in seconds."""

    config: str
    panel: str
    style: str
    order: str
    mode: str
    """`off` or `on`: without or with overlap."""
    question: int
    last_s: float
    """From the request to the last proposal."""
    ttft_s: float
    """From the last proposal to the answer's first token."""
    whole_s: float
    """From the request to the end of the answer."""
    prompt_tokens: int
    """Tokens of the aggregator's prompt."""
    cached_tokens: int
    """How many tokens of this prompt were in the engine's cache."""
    written_tokens: int
    warmed_tokens: int
    """Tokens that the complete warm-ups have read."""
    cancelled: int
    """Number of warm-ups that were ended early."""
    text: str
    proposals: list[str]
    arrived: list[int]
    """The places in the order in which the proposals came."""
    read: list[int]
    """The places in the order of the prompt."""

    @property
    def variant(self) -> Variant:
        """How the question was answered, apart from the overlap."""
        return self.config, self.panel, self.style, self.order

    def to_json(self) -> dict[str, Any]:
        """The answer as data for JSON."""
        return asdict(self)


def read_answers(file: Path) -> list[Answer]:
    """The answers that a file keeps; none if there is no file."""
    if not file.exists():
        return []
    return [Answer(**json.loads(line)) for line in file.read_text("utf-8").splitlines()]


def print_table(answers: Sequence[Answer]) -> None:
    """Print the figures of each variant, over the questions that were answered in both modes."""
    pairs: dict[Variant, dict[int, dict[str, Answer]]] = defaultdict(dict)
    for each in answers:
        pairs[each.variant].setdefault(each.question, {})[each.mode] = each
    rows = []
    for variant, questions in pairs.items():
        whole = [(both["off"], both["on"]) for both in questions.values() if len(both) == 2]
        if whole:
            rows.append(_row(variant, whole))
    if not rows:
        raise SystemExit("no question was answered in both modes yet")
    report("The first token after the last proposal, cold and warm", rows, [], None)


def _row(variant: Variant, pairs: Sequence[tuple[Answer, Answer]]) -> dict[str, Any]:
    """The figures of pairs of answers: first the cold answer, then the warm answer."""

    def both(of: Callable[[Answer], float]) -> str:
        cold, warm = ([of(pair[n]) for pair in pairs] for n in range(2))
        return " | ".join(
            f"{median(values):.2f} {percentile(values, 0.95):.2f}" for values in (cold, warm)
        )

    def total(of: Callable[[Answer], float], mode: int) -> float:
        return sum(of(pair[mode]) for pair in pairs)

    def ratio(of: Callable[[Answer], float]) -> str:
        ratios = [of(warm) / of(cold) for cold, warm in pairs]
        return f"{median(ratios):.2f}"

    same = [(cold, warm) for cold, warm in pairs if cold.proposals == warm.proposals]
    kept = [max(0, warm.cached_tokens - cold.cached_tokens) for cold, warm in pairs]
    return {
        "config, panel, style, order": " ".join(variant),
        "n": len(pairs),
        "TTFT p50 p95 cold | warm, s": both(lambda a: a.ttft_s),
        "TTFT ratio": ratio(lambda a: a.ttft_s),
        "cached share cold | warm": " | ".join(
            f"{total(lambda a: a.cached_tokens, n) / total(lambda a: a.prompt_tokens, n):.2f}"
            for n in range(2)
        ),
        "last proposal, ratio": ratio(lambda a: a.last_s),
        "whole p50 p95, s": both(lambda a: a.whole_s),
        "whole ratio": ratio(lambda a: a.whole_s),
        "sum of whole": f"{total(lambda a: a.whole_s, 1) / total(lambda a: a.whole_s, 0):.3f}",
        "warmed, of no use": f"{total(lambda a: a.warmed_tokens, 1):.0f}, "
        f"{max(0.0, total(lambda a: a.warmed_tokens, 1) - sum(kept)):.0f}",
        "same proposals, same texts": f"{len(same)}, {sum(c.text == w.text for c, w in same)}",
    }
