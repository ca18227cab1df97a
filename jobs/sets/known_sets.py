"""Recognises the prompts of public benchmarks by their hashes, so that a figure of a benchmark is only
given for that benchmark's prompts.

The prompts themselves are no part of the project. A line of `fingerprints/NAME.txt` has the hash of one
prompt, in the benchmark's own order. In AlpacaEval's file the length of the leaderboard's baseline
answer to the prompt follows, in characters.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jobs.records import Row

FOLDER = Path(__file__).parent / "fingerprints"
"""The folder of the fingerprints."""
HASH_DIGITS = 10
"""Hexadecimal digits of a prompt's hash."""

MT_BENCH_TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}
"""The temperature at which MT-Bench has the prompts of a category answered: `temperature_config` of
FastChat's `llm_judge/common.py`. Together's MoA draws proposals and answers at this temperature too."""
MT_BENCH_WITH_REFERENCE = ("math", "reasoning", "coding")
"""The categories whose reference answers MT-Bench shows to its judge: `NEED_REF_CATS` of FastChat's
`llm_judge/common.py`. The file of questions has references for other categories as well."""


@dataclass(frozen=True, slots=True)
class KnownSet:
    """What is known of a public benchmark."""

    positions: Mapping[str, int]
    """The position of each prompt in the benchmark, from 0, by the prompt's hash."""

    baseline_lengths: Sequence[int]
    """The length of the leaderboard's baseline answer at each position, in characters; empty if the
    benchmark has no such baseline."""

    def position(self, row: Row) -> int | None:
        """The position of a row in the benchmark; None if the row is none of the benchmark's."""
        return None if row.before else self.position_of(row.turns[0])

    def position_of(self, prompt: str) -> int | None:
        """The position of a prompt in the benchmark; None if the prompt is none of the benchmark's."""
        return self.positions.get(fingerprint(prompt))


def fingerprint(prompt: str) -> str:
    """The hash of a prompt. White space counts as one space, because exports of sets change it."""
    words = " ".join(prompt.split())
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_DIGITS]


@cache
def known_set(name: str) -> KnownSet:
    """The fingerprints of a benchmark: `alpaca_eval` or `mt_bench`."""
    lines = [line.split() for line in (FOLDER / f"{name}.txt").read_text("utf-8").splitlines()]
    positions = {line[0]: position for position, line in enumerate(lines)}
    return KnownSet(positions, [int(line[1]) for line in lines if len(line) > 1])


def is_mt_bench(row: Row) -> bool:
    """Whether a row is one of MT-Bench's questions, or a question in the form and with the categories
    of MT-Bench, such as a translation."""
    has_its_form = row.id is not None and row.category in MT_BENCH_TEMPERATURES and len(row.turns) > 1
    return has_its_form or known_set("mt_bench").position(row) is not None
